"""The two engines behind one shape: how to connect, how to begin, how to look up and record."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, Engine

from smtpguard.domain.ledger import LedgerEntry
from smtpguard.domain.standing import AddressFacts
from smtpguard.errors import StoreUnavailable
from smtpguard.storage.recording import Detour
from smtpguard.storage.sightings import Sightings
from smtpguard.storage.sqlite import SqliteDatabase


class HotPath(Protocol):
    """What a reply waits for: look-ups, outside of any transaction, and the relaxed commits of traffic."""

    async def facts(
        self, lookup_keys: Sequence[str], *, customer: str | None, now: datetime
    ) -> dict[str, AddressFacts]:
        """Return the facts of every key. Raises StoreUnavailable."""

    async def record(self, entries: Sequence[LedgerEntry]) -> None:
        """Add entries to the ledger; the customers that they name are bound to their recipients."""

    async def bind(self, seen: Sightings) -> None:
        """Bind (lookup key, customer) pairs."""

    async def close(self) -> None:
        """Finish what was handed in, and disconnect."""


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

    async def hot_path(self, detour: Detour) -> HotPath:
        """Open the hot path; what it cannot write itself takes the detour."""


def database_at(url: str) -> Database:
    """Return the database that a URL names."""
    if url.startswith("sqlite:///"):
        return SqliteDatabase(url)
    if url.startswith("postgresql://"):
        from smtpguard.storage.postgres import PostgresDatabase  # noqa: PLC0415 - the driver takes nine megabytes

        return PostgresDatabase(url)
    raise StoreUnavailable("the URL of the store begins with neither sqlite:/// nor postgresql://")
