"""The two engines behind one shape: how to connect, how to begin, how to look up."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, Engine

from smtpguard.domain.standing import AddressFacts
from smtpguard.errors import StoreUnavailable
from smtpguard.storage.postgres import PostgresDatabase
from smtpguard.storage.sqlite import SqliteDatabase


class FactsReader(Protocol):
    """Look-ups on a connection of their own, outside of any transaction."""

    async def facts(self, lookup_keys: Sequence[str], *, customer: str, now: datetime) -> dict[str, AddressFacts]:
        """Return the facts of every key; ``customer`` is '' where none is named. Raises StoreUnavailable."""

    async def close(self) -> None:
        """Give the connection back."""


class Database(Protocol):
    """One database, not yet connected to."""

    @property
    def is_embedded(self) -> bool:
        """Whether it lives in a file beside the process."""

    @property
    def exists(self) -> bool:
        """Whether there is something to connect to, as far as that can be said without connecting."""

    def create(self) -> None:
        """Make what an upgrade needs to connect to."""

    def engine(self, *, connections: int, patient: bool = False) -> Engine:
        """Make an engine that keeps up to so many connections; a patient one waits longer for locks."""

    def begin(self, connection: Connection, *, durable: bool) -> None:
        """Begin a transaction to write in; a durable one is on disk when its commit returns."""

    def durability_problem(self, connection: Connection) -> str | None:
        """Say, within a durable transaction, why its commit would not be on disk; None: it would."""

    def lock_schema(self, connection: Connection) -> None:
        """Keep every other upgrade out until the transaction ends."""

    async def reader(self) -> FactsReader:
        """Open the reader."""


def database_at(url: str) -> Database:
    """Return the database that a URL names."""
    if url.startswith("sqlite:///"):
        return SqliteDatabase(url)
    if url.startswith("postgresql://"):
        return PostgresDatabase(url)
    raise StoreUnavailable("the URL of the store begins with neither sqlite:/// nor postgresql://")
