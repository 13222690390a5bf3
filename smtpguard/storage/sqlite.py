"""SQLite: connections, transactions and look-ups of the embedded store.

Write-ahead log; look-ups run straight on the event loop, where they cost less than a hop to a thread, on a connection
that cannot write.
"""

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, bindparam, create_engine, event, select
from sqlalchemy.dialects.sqlite import pysqlite

from smtpguard.domain.standing import NOTHING_ON_RECORD, AddressFacts
from smtpguard.errors import StoreUnavailable
from smtpguard.storage.dialects import storing
from smtpguard.storage.driver_errors import translated
from smtpguard.storage.facts import fact_columns, facts_of
from smtpguard.storage.tables import Key, UtcDateTime, addresses

BUSY_SECONDS = 10
"""How long a writer waits for the transaction of another process."""
PATIENT_SECONDS = 60
READER_BUSY_SECONDS = 0.2
"""A look-up waits for no writer, only for the recovery after a crash; it must not hold up the event loop."""
KEYS_AT_ONCE = 100
"""Look-ups between two turns of the event loop: about a millisecond."""
MAX_LOG_BYTES = 67_108_864
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA journal_size_limit = {MAX_LOG_BYTES}",
)
_SYNCHRONOUS_FULL = 2
_DIALECT = pysqlite.dialect(paramstyle="named")


class SqliteDatabase:
    """A SQLite file; see ``database.Database``."""

    is_embedded = True

    def __init__(self, url: str) -> None:
        name = url.removeprefix("sqlite:///")
        if name in {"", ":memory:"}:
            raise StoreUnavailable("the URL of the store names no file; in memory it would keep nothing")
        self._path = Path(name).absolute()

    @property
    def exists(self) -> bool:
        """Whether there is a file; to connect makes none."""
        with _reaching(self._path):
            return self._path.exists()

    def create(self) -> None:
        """Make the file, for the eyes of its owner only: there will be mail in it."""
        with _reaching(self._path):
            self._path.touch(mode=0o600)

    def engine(self, *, connections: int, patient: bool = False) -> Engine:
        """Make an engine; its execution option ``writes`` lets a transaction begin as a writer."""
        busy_seconds = PATIENT_SECONDS if patient else BUSY_SECONDS
        engine = create_engine(
            "sqlite://",
            creator=lambda: _connect(self._path, busy_seconds=busy_seconds),
            poolclass=QueuePool,
            pool_size=connections,
            max_overflow=0,
            hide_parameters=True,  # an error goes to the log, and they may be somebody's mail
        )
        event.listen(engine, "begin", _begin)
        return engine

    def begin(self, connection: Connection, *, durable: bool) -> None:
        """Begin; SQLite is told between two transactions whether the next commit waits for the disk."""
        connection.connection.cursor().execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.begin()

    def durability_problem(self, connection: Connection) -> str | None:
        """Read back the journal mode and whether a commit waits for the disk."""
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
        if (mode, synchronous) == ("wal", _SYNCHRONOUS_FULL):
            return None
        return f"{self._path} is not durable: journal_mode is {mode}, synchronous is {synchronous}"

    def lock_schema(self, connection: Connection) -> None:
        """Nothing to do: a transaction that writes has SQLite's only write lock from its beginning."""

    async def reader(self) -> "SqliteReader":
        """Open the reader."""
        return SqliteReader(_connect(self._path, busy_seconds=READER_BUSY_SECONDS))


class SqliteReader:
    """Look-ups, straight on the event loop."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._connection.execute("PRAGMA query_only = ON")
        facts = fact_columns(bindparam("customer", type_=Key), bindparam("now", type_=UtcDateTime))
        asked = addresses.c.lookup_key == bindparam("lookup_key")
        statement = select(*facts).where(asked).compile(dialect=_DIALECT)
        self._statement = str(statement)
        self._constants = statement.params
        self._stored = storing(_DIALECT, UtcDateTime())

    async def facts(self, lookup_keys: Sequence[str], *, customer: str, now: datetime) -> dict[str, AddressFacts]:
        """Return the facts of every key."""
        parameters = self._constants | {"customer": customer, "now": self._stored(now)}
        answer: dict[str, AddressFacts] = {}
        for start in range(0, len(lookup_keys), KEYS_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            with translated():
                for lookup_key in lookup_keys[start : start + KEYS_AT_ONCE]:
                    row = self._connection.execute(self._statement, parameters | {"lookup_key": lookup_key}).fetchone()
                    answer[lookup_key] = facts_of(row) if row else NOTHING_ON_RECORD
        return answer

    async def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def _reaching(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be reached: {error.strerror}") from error


def _connect(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
    """Connect to a file that is there; the driver begins no transactions by itself."""
    location = f"file:{quote(str(path))}?mode=rw"
    try:
        connection = sqlite3.connect(
            location, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{path} cannot be opened: {error}") from error
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
    except sqlite3.Error as error:
        connection.close()
        raise StoreUnavailable(f"{path} cannot be used: {error}") from error
    return connection


def _begin(connection: Connection) -> None:
    """Take the write lock at once where it will be needed: a reader that wants to write later may be refused."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
