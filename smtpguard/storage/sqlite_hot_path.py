"""SQLite on the path of a reply: look-ups and the commits of traffic, straight on the event loop.

Both cost less than a hop to a thread. One connection does both, because a commit of another one would throw away the
pages that it has in memory. It waits for no lock and for no disk: what cannot be written at once takes the detour
through the writer's line, and the checkpoints are made elsewhere.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, insert, select

from smtpguard.domain.ledger import LedgerEntry
from smtpguard.domain.standing import NOTHING_ON_RECORD, AddressFacts
from smtpguard.errors import StoreUnavailable
from smtpguard.storage.dialects import SQLITE
from smtpguard.storage.driver_errors import as_store_error
from smtpguard.storage.driver_statement import Cursor, DriverStatement
from smtpguard.storage.facts import fact_columns, facts_of
from smtpguard.storage.recording import LEDGER_COLUMNS, Detour, Recording, ledger_row, merged, sightings_of
from smtpguard.storage.sightings import SQLITE_BINDINGS, Sightings
from smtpguard.storage.sqlite_checkpoints import Checkpoints
from smtpguard.storage.tables import Key, UtcDateTime, addresses, ledger, microseconds

KEYS_AT_ONCE = 100
"""Look-ups between two turns of the event loop: less than a millisecond."""
ROWS_AT_ONCE = 100
"""Rows of one transaction that are written on the event loop; more of them take the detour."""
CACHE_KIBIBYTES = 1024
"""Room for the inner pages of a million addresses and for a commit; what they lead to is read from the file."""
RETRIES = 10
RETRY_SECONDS = 0.02
"""A look-up waits for no writer, only for the recovery after a crash."""
_INSERT = DriverStatement(insert(ledger).values({column.name: None for column in LEDGER_COLUMNS}), SQLITE)
_READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_TRANSACTION})
_WRITING = frozenset(
    {
        (sqlite3.SQLITE_INSERT, "ledger"),
        (sqlite3.SQLITE_INSERT, "addresses"),
        (sqlite3.SQLITE_INSERT, "bindings"),
        (sqlite3.SQLITE_UPDATE, "bindings"),
    }
)


class SqliteHotPath:
    """See ``database.HotPath``. ``checkpoints`` is another connection."""

    def __init__(self, connection: sqlite3.Connection, checkpoints: sqlite3.Connection, detour: Detour) -> None:
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.set_authorizer(_authorize)
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._cursor = connection.cursor()
        self._checkpoints = Checkpoints(checkpoints, on_restarted=self._commit)
        self._detour = detour
        self._waiting: list[tuple[Recording, asyncio.Future[bool]]] = []

    async def facts(
        self, lookup_keys: Sequence[str], *, customer: str | None, now: datetime
    ) -> dict[str, AddressFacts]:
        """Return the facts of every key."""
        statement = LOOK_UP_FOR_CUSTOMER if customer else LOOK_UP
        asked: dict[str, Any] = {"customer": customer, "now": microseconds(now)}
        answer = {}
        for lookup_key in lookup_keys:
            asked["lookup_key"] = lookup_key
            try:
                answer[lookup_key] = self._look_up(statement, asked)
            except StoreUnavailable:
                answer[lookup_key] = await self._look_up_patiently(statement, asked)
            if len(answer) % KEYS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return answer

    async def record(self, entries: Sequence[LedgerEntry]) -> None:
        """Add entries to the ledger; the customers that they name are bound to their recipients."""
        rows = [ledger_row(entry, microseconds(entry.at)) for entry in entries]
        await self._leave(Recording(rows, sightings_of(entries)))

    async def bind(self, seen: Sightings) -> None:
        """Put bindings on record."""
        await self._leave(Recording((), seen))

    async def close(self) -> None:
        """Finish what was handed in, and disconnect."""
        self._commit()
        self._connection.close()
        await self._checkpoints.close()

    def _look_up(self, statement: DriverStatement, asked: dict[str, Any]) -> AddressFacts:
        try:
            row = self._cursor.execute(statement.text, statement.arranged(asked)).fetchone()
        except sqlite3.Error as error:
            problem = as_store_error(error)
            if problem is None:
                raise
            raise problem from error
        return NOTHING_ON_RECORD if row is None else facts_of(row)

    async def _look_up_patiently(self, statement: DriverStatement, asked: dict[str, Any]) -> AddressFacts:
        for _ in range(RETRIES):
            await asyncio.sleep(RETRY_SECONDS)
            with suppress(StoreUnavailable):
                return self._look_up(statement, asked)
        return self._look_up(statement, asked)

    async def _leave(self, recording: Recording) -> None:
        if recording.size > ROWS_AT_ONCE or not await self._gathered(recording):
            await self._detour(lambda connection: _write(connection.connection.cursor(), recording))

    def _gathered(self, recording: Recording) -> asyncio.Future[bool]:
        """Return whether it is committed, with all that arrives in this turn of the event loop and the next."""
        is_committed: asyncio.Future[bool] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._loop.call_soon, self._commit)
        self._waiting.append((recording, is_committed))
        return is_committed

    def _commit(self) -> None:
        if self._checkpoints.is_restarting or not self._waiting:
            return
        batch = [(recording, waiting) for recording, waiting in self._waiting if not waiting.done()]
        self._waiting.clear()
        is_committed = self._committed([recording for recording, _ in batch])
        for _, waiting in batch:
            waiting.set_result(is_committed)
        if is_committed:  # told last: whatever comes of it, nobody waits for ever
            self._checkpoints.committed(sum(recording.size for recording, _ in batch))

    def _committed(self, recordings: Sequence[Recording]) -> bool:
        try:
            recording = merged(recordings)
            self._cursor.execute("BEGIN IMMEDIATE")
            _write(self._cursor, recording)
            self._cursor.execute("COMMIT")
        except Exception:  # noqa: BLE001 - whatever it is, the writer hears it too, of each recording alone
            with suppress(sqlite3.Error):
                self._connection.rollback()
            return False
        return True


def _write(cursor: Cursor, recording: Recording) -> None:
    if recording.rows:
        cursor.executemany(_INSERT.text, recording.rows)
    SQLITE_BINDINGS.see(cursor, recording.seen)


def _authorize(action: int, table: str | None, *_: object) -> int:
    """What a statement may do: read, and write what traffic leaves; never what makes an address verified or flagged."""
    is_allowed = action in _READING or (action, table) in _WRITING
    return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY


def _look_up_statement(customer: ColumnElement[str] | None) -> DriverStatement:
    facts = fact_columns(customer, bindparam("now", type_=UtcDateTime))
    return DriverStatement(select(*facts).where(addresses.c.lookup_key == bindparam("lookup_key")), SQLITE)


LOOK_UP = _look_up_statement(None)
LOOK_UP_FOR_CUSTOMER = _look_up_statement(bindparam("customer", type_=Key))
