"""Long work: listings, imports, the check of the audit chain, on connections and threads of their own.

It never waits in the writer's line, nor makes that line wait: whatever is long goes page by page, each page a
transaction of its own.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from smtpguard.errors import StoreUnavailable
from smtpguard.storage.database import Database
from smtpguard.storage.driver_errors import despite_deadlocks, translated

THREADS = 4
PAGE_ROWS = 1000

T = TypeVar("T")
Cursor = TypeVar("Cursor")
Page = Callable[[Connection, Cursor | None, int], Sequence[T]]
"""Reads up to so many items after a cursor, in order."""


class LongWork:
    """The threads of a store beside its writer, and their connections."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._engine = database.engine(connections=THREADS)
        self._is_closed = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="smtpguard-long-work")

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction that reads; raises what it raises, and StoreUnavailable."""
        return await self._run(self._reading, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a relaxed transaction that writes; raises what it raises, StoreFull and StoreUnavailable.

        It runs again where the server has broken a deadlock at its expense.
        """
        return await self._run(self._writing, work)

    async def pages(
        self, page: Page[Cursor, T], *, limit: int, after: Cursor | None, cursor_of: Callable[[T], Cursor]
    ) -> AsyncGenerator[Sequence[T], None]:
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
        self._is_closed = True
        await asyncio.to_thread(self._threads.shutdown)
        self._engine.dispose()

    async def _run(self, call: Callable[[Callable[[Connection], T]], T], work: Callable[[Connection], T]) -> T:
        if self._is_closed:
            raise StoreUnavailable("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, work)

    def _reading(self, work: Callable[[Connection], T]) -> T:
        with translated(), self._engine.begin() as connection:
            return work(connection)

    def _writing(self, work: Callable[[Connection], T]) -> T:
        with translated():
            return despite_deadlocks(lambda: self._write_once(work))

    def _write_once(self, work: Callable[[Connection], T]) -> T:
        with self._engine.execution_options(writes=True).connect() as connection:
            self._database.begin(connection, durable=False)
            result = work(connection)
            connection.commit()
            return result


def _page(page: Page[Cursor, T], after: Cursor | None, rows: int, connection: Connection) -> Sequence[T]:
    return page(connection, after, rows)
