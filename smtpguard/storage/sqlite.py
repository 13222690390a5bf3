"""SQLite: connections and transactions of the embedded store, which has a write-ahead log."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event

from smtpguard.errors import StoreUnavailable
from smtpguard.storage.recording import Detour
from smtpguard.storage.sqlite_hot_path import SqliteHotPath

BUSY_SECONDS = 10
"""How long a writer waits for the transaction of another process."""
PATIENT_SECONDS = 60
CHECKPOINT_BUSY_SECONDS = 0.2
"""How long a checkpoint waits for others; it has the write lock meanwhile."""
LOG_PAGES = 4000
"""After a commit that makes the log longer, who has committed moves it."""
MAX_LOG_BYTES = 16_777_216
"""A log that begins anew is cut to this length; usually it was shorter."""
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA journal_size_limit = {MAX_LOG_BYTES}",
    f"PRAGMA wal_autocheckpoint = {LOG_PAGES}",
)
_SYNCHRONOUS_FULL = 2


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

    async def hot_path(self, detour: Detour) -> SqliteHotPath:
        """Open the hot path and its checkpoints, which do not wait for long."""
        hot = _connect(self._path, busy_seconds=BUSY_SECONDS)
        return SqliteHotPath(hot, _connect(self._path, busy_seconds=CHECKPOINT_BUSY_SECONDS), detour)


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
