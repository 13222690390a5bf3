"""The writer: one connection and one thread, where writes that arrive together are one transaction (group commit).

The transaction is durable as soon as one of its writes is. Nobody is told that a write was done before it is committed;
where the outcome of a commit is not known, it is StoreUnavailable.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from smtpguard.errors import StoreError, StoreUnavailable, StoreUntouched
from smtpguard.storage.database import Database
from smtpguard.storage.driver_errors import despite_deadlocks, translated
from smtpguard.storage.line import Line, LineFailed

WRITE_SECONDS = 30
"""How long a write may take in all, waiting included; whether it was done is not known after that."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Write:
    work: Callable[[Connection], Any]
    durable: bool


class _NotBegun(LineFailed, StoreUntouched):
    """No transaction could be begun."""


class Writer:
    """All short writes of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._engine = database.engine(connections=1).execution_options(writes=True)
        self._line = Line("smtpguard-writer", self._write)

    async def write(self, work: Callable[[Connection], T], *, durable: bool) -> T:
        """Run ``work`` in a transaction and return what it returns, once it is committed.

        ``work`` runs in the writer's thread, and may run several times, all but the last in vain. Raises what it
        raises; StoreFull, StoreUnavailable and StoreUntouched.
        """
        try:
            return cast("T", await self._line.ask(_Write(work, durable), seconds=WRITE_SECONDS))
        except TimeoutError:
            raise StoreUnavailable(f"the store did not answer a write within {WRITE_SECONDS} s") from None

    async def close(self) -> None:
        """Finish what was handed in, and disconnect."""
        await self._line.close()
        self._engine.dispose()

    def _write(self, writes: Sequence[_Write]) -> list[Any]:
        with translated():
            return despite_deadlocks(lambda: self._write_once(writes))

    def _write_once(self, writes: Sequence[_Write]) -> list[Any]:
        with self._begun(durable=any(write.durable for write in writes)) as connection:
            results = [write.work(connection) for write in writes]
            _commit(connection)
            return results

    @contextmanager
    def _begun(self, *, durable: bool) -> Iterator[Connection]:
        """A transaction; _NotBegun where the store does not let one begin."""
        with ExitStack() as stack:
            try:
                with translated():
                    connection = stack.enter_context(self._engine.connect())
                    self._database.begin(connection, durable=durable)
            except StoreError as error:
                raise _NotBegun(str(error)) from error
            yield connection


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise LineFailed("the store was lost at the commit: whether it was written is not known") from error
        raise
