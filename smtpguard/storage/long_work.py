"""Long work: listings, imports, the check of the audit chain, on connections and threads of their own.

It never waits in the writer's line, nor makes that line wait: whatever is long goes page by page, each page a
transaction of its own.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine

from smtpguard.storage.database import Database
from smtpguard.storage.driver_errors import translated

THREADS = 4
PAGE_ROWS = 1000

T = TypeVar("T")
Cursor = TypeVar("Cursor")
Page = Callable[[Connection, Cursor | None, int], Sequence[T]]
"""Reads up to so many items after a cursor, in order."""


class LongWork:
    """The threads of a store beside its writer, and their connections."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine(connections=THREADS)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="smtpguard-long-work")

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction that reads; raises what it raises, and StoreUnavailable."""
        return await self._run(self._engine, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a durable transaction; raises what it raises, StoreFull and StoreUnavailable."""
        return await self._run(self._engine.execution_options(writes=True), work)

    async def pages(
        self, page: Page[Cursor, T], *, limit: int, after: Cursor | None, cursor_of: Callable[[T], Cursor]
    ) -> AsyncIterator[Sequence[T]]:
        """Read page after page, up to ``limit`` items in all, 0 for all there are."""
        left = limit or sys.maxsize
        while left:
            rows = min(left, PAGE_ROWS)
            items = await self.read(partial(_page, page, after, rows))
            yield items
            if len(items) < rows:
                return
            left -= rows
            after = cursor_of(items[-1])

    async def gather(
        self, page: Page[Cursor, T], *, limit: int, after: Cursor | None, cursor_of: Callable[[T], Cursor]
    ) -> list[T]:
        """Read up to ``limit`` items, 0 for all there are, into one list."""
        return [
            item async for items in self.pages(page, limit=limit, after=after, cursor_of=cursor_of) for item in items
        ]

    async def close(self) -> None:
        """Finish what was handed in, and disconnect."""
        await asyncio.to_thread(self._threads.shutdown)
        self._engine.dispose()

    async def _run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _in_transaction, engine, work)


def _page(page: Page[Cursor, T], after: Cursor | None, rows: int, connection: Connection) -> Sequence[T]:
    return page(connection, after, rows)


def _in_transaction(engine: Engine, work: Callable[[Connection], T]) -> T:
    with translated(), engine.begin() as connection:
        return work(connection)
