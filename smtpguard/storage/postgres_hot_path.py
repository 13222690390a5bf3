"""PostgreSQL on the path of a reply: look-ups and the commits of traffic, each in a line with its own connection.

What arrives together is one statement. A commit of traffic does not wait for the server's disk.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any

import psycopg
from sqlalchemy import Column, Text, bindparam, column, func, insert, literal_column, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from smtpguard.domain.ledger import LedgerEntry
from smtpguard.domain.standing import NOTHING_ON_RECORD, AddressFacts
from smtpguard.errors import StoreUnavailable
from smtpguard.storage.dialects import POSTGRES
from smtpguard.storage.driver_errors import as_store_error, despite_deadlocks
from smtpguard.storage.facts import fact_columns, facts_of
from smtpguard.storage.line import Line, LineFailed
from smtpguard.storage.postgres_connection import Channel, PromptConnection
from smtpguard.storage.recording import LEDGER_COLUMNS, Recording, ledger_row, merged, sightings_of
from smtpguard.storage.sightings import POSTGRES_BINDINGS, Sightings
from smtpguard.storage.tables import UtcDateTime, addresses, ledger

LOOKUP_SECONDS = 5
"""How long a look-up may take in all; after that the store is unavailable."""
RECORD_SECONDS = 30
"""How long a commit may take in all; whether it was made is not known after that."""


@dataclass(frozen=True, slots=True)
class _Question:
    """One look-up: some addresses, for one customer ('' for none), at one time (ISO 8601)."""

    lookup_keys: Sequence[str]
    customer: str
    now: str


class PostgresHotPath:
    """See ``database.HotPath``."""

    def __init__(self, *, look_ups: Channel, recordings: Channel) -> None:
        self._look_ups = look_ups
        self._recordings = recordings
        self._look_up_line = Line("smtpguard-lookups", self._look_up)
        self._record_line = Line("smtpguard-ledger", self._record)

    async def facts(
        self, lookup_keys: Sequence[str], *, customer: str | None, now: datetime
    ) -> dict[str, AddressFacts]:
        """Return the facts of every key."""
        question = _Question(lookup_keys, customer or "", now.isoformat())
        try:
            facts = await self._look_up_line.ask(question, seconds=LOOKUP_SECONDS)
        except TimeoutError:
            raise StoreUnavailable(f"the store did not answer a look-up within {LOOKUP_SECONDS} s") from None
        return dict(zip(lookup_keys, facts, strict=True))

    async def record(self, entries: Sequence[LedgerEntry]) -> None:
        """Add entries to the ledger; the customers that they name are bound to their recipients."""
        await self._leave(
            Recording([ledger_row(entry, entry.at.isoformat()) for entry in entries], sightings_of(entries))
        )

    async def bind(self, seen: Sightings) -> None:
        """Bind (lookup key, customer) pairs."""
        await self._leave(Recording((), seen))

    async def close(self) -> None:
        """Finish what was handed in, and disconnect."""
        await self._record_line.close()
        self._recordings.disconnect()
        await self._look_up_line.close()
        self._look_ups.disconnect()

    async def _leave(self, recording: Recording) -> None:
        try:
            await self._record_line.ask(recording, seconds=RECORD_SECONDS)
        except TimeoutError:
            raise StoreUnavailable(f"the store did not answer a write within {RECORD_SECONDS} s") from None

    def _look_up(self, questions: Sequence[_Question]) -> list[list[AddressFacts]]:
        connection = self._look_ups.connected()
        try:
            rows = connection.execute(LOOK_UPS, _arrays(questions), prepare=True).fetchall()
        except psycopg.Error as error:
            problem = as_store_error(error)
            self._look_ups.disconnect()
            if problem is None:
                raise
            raise LineFailed(str(problem)) from error
        found = {position: facts_of(tuple(facts)) for position, *facts in rows}
        positions = count(1)  # WITH ORDINALITY counts from 1
        return [[found.get(next(positions), NOTHING_ON_RECORD) for _ in question.lookup_keys] for question in questions]

    def _record(self, recordings: Sequence[Recording]) -> list[None]:
        connection = self._recordings.connected()
        try:
            despite_deadlocks(lambda: _write(connection, merged(recordings)))
        except psycopg.Error as error:
            problem = as_store_error(error)
            if problem is None:
                self._recordings.disconnect()  # the mistake may be the connection's: its statements are gone, say
                raise
            if connection.closed:
                raise LineFailed(str(problem)) from error
            raise problem from error
        return [None] * len(recordings)


def _write(connection: PromptConnection, recording: Recording) -> None:
    """One statement where that is all; it is its own transaction then."""
    if not recording.seen:
        _insert(connection, recording.rows)
        return
    with connection.transaction(), connection.cursor() as cursor:
        if recording.rows:
            _insert(connection, recording.rows)
        POSTGRES_BINDINGS.see(cursor, recording.seen)


def _insert(connection: PromptConnection, rows: Sequence[Sequence[Any]]) -> None:
    names = (each.name for each in LEDGER_COLUMNS)
    connection.execute(_INSERT, dict(zip(names, map(_array, zip(*rows, strict=True)), strict=True)), prepare=True)


def _arrays(questions: Sequence[_Question]) -> dict[str, str]:
    return {
        "lookup_key": _array(lookup_key for question in questions for lookup_key in question.lookup_keys),
        "customer": _array(question.customer for question in questions for _ in question.lookup_keys),
        "now": _array(question.now for question in questions for _ in question.lookup_keys),
    }


def _array(items: Iterable[str | None]) -> str:
    """Write an array as PostgreSQL reads it; from a list the driver makes the same in many times as long."""
    return "{" + ",".join("NULL" if item is None else _quoted(item) for item in items) + "}"


def _quoted(item: str) -> str:
    escaped = item.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _rows_of(name: str, kinds: dict[str, Any], *, with_ordinality: str | None = None) -> Any:
    """Rows that come as one array a column, each array under the name of its column."""
    arrays = [bindparam(column_name, type_=postgresql.ARRAY(kind)) for column_name, kind in kinds.items()]
    columns: list[Any] = [column(column_name, kind) for column_name, kind in kinds.items()]
    return func.unnest(*arrays).table_valued(*columns, with_ordinality=with_ordinality).render_derived(name=name)


def _look_up_statement() -> bytes:
    """Compile the look-ups of a batch; the facts come with the position of their question."""
    kinds = {"lookup_key": Text(), "customer": Text(), "now": UtcDateTime()}
    asked = _rows_of("asked", kinds, with_ordinality="position")
    known = asked.join(addresses, addresses.c.lookup_key == asked.c.lookup_key)
    facts = fact_columns(func.nullif(asked.c.customer, literal_column("''")), asked.c.now)
    return str(select(asked.c.position, *facts).select_from(known).compile(dialect=POSTGRES)).encode()


def _insert_statement() -> bytes:
    recorded = _rows_of("recorded", {each.name: _kind(each) for each in LEDGER_COLUMNS})
    statement = insert(ledger).from_select(LEDGER_COLUMNS, select(recorded))
    return str(statement.compile(dialect=POSTGRES)).encode()


def _kind(of: Column[Any]) -> TypeEngine[Any]:
    return of.type if isinstance(of.type, UtcDateTime) else Text()


LOOK_UPS = _look_up_statement()
_INSERT = _insert_statement()
