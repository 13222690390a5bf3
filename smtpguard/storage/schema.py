"""The schema of a store: which revision it has, and how it gets to that of this version.

The migrations lie beside the package in a checkout and within it in a wheel, so that an installed smtpguard can
upgrade its store. Alembic, which takes ten megabytes and a moment, is loaded where there is something to upgrade.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from smtpguard.errors import SchemaMismatch
from smtpguard.storage.database import Database, database_at
from smtpguard.storage.driver_errors import translated

if TYPE_CHECKING:
    from alembic.config import Config


def upgrade(url: str) -> None:
    """Bring a store to the schema of this version; who comes at the same time waits.

    Raises SchemaMismatch where a newer version has been there, and StoreUnavailable.
    """
    from alembic import command  # noqa: PLC0415 - see above

    database = database_at(url)
    database.create()
    with locked(database) as connection:
        _refuse_unknown(_revision(connection))
        command.upgrade(migrations(connection), "head")


def current_revision(url: str) -> str | None:
    """Return the revision of a store, None of an empty one; raises StoreUnavailable."""
    database = database_at(url)
    if not database.exists:
        return None
    with _connected(database) as connection:
        return _revision(connection)


def head_revision() -> str:
    """Return the revision of this version."""
    return _revisions()[-1]


def check_revision(url: str) -> None:
    """Raise SchemaMismatch, with what to do about it, where the schema of a store is not that of this version."""
    _refuse_other(current_revision(url))


def check_revision_of(connection: Connection) -> None:
    """Raise SchemaMismatch as ``check_revision`` does, for a store that is open."""
    _refuse_other(_revision(connection))


def is_embedded(url: str) -> bool:
    """Whether the store is a file beside the process, which ``serve`` upgrades by itself."""
    return database_at(url).is_embedded


def migrations(connection: Connection | None = None) -> "Config":
    """Return Alembic's configuration, for a connection that has begun."""
    from alembic.config import Config  # noqa: PLC0415 - see above

    config = Config()
    config.set_main_option("script_location", str(_directory()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@contextmanager
def locked(database: Database) -> Iterator[Connection]:
    """Begin a transaction that keeps every other upgrade out."""
    with _connected(database, writes=True) as connection:
        database.lock_schema(connection)
        yield connection


@contextmanager
def _connected(database: Database, *, writes: bool = False) -> Iterator[Connection]:
    engine = database.engine(connections=1, patient=writes)
    try:
        with translated(), engine.execution_options(writes=writes).begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _revision(connection: Connection) -> str | None:
    """Read what Alembic has written."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return revision


def _revisions() -> list[str]:
    """Return what this version knows, in their order: each stands in front of the name of its file."""
    return sorted(file.name.partition("_")[0] for file in (_directory() / "versions").glob("[0-9]*_*.py"))


def _refuse_other(revision: str | None) -> None:
    _refuse_unknown(revision)
    head = head_revision()
    if revision != head:
        found = f"the schema of the store is {revision}" if revision else "the store is empty"
        raise SchemaMismatch(f"{found}, this version needs {head}: run `smtpguard db upgrade`")


def _refuse_unknown(revision: str | None) -> None:
    if revision is not None and revision not in _revisions():
        raise SchemaMismatch(
            f"the schema of the store is {revision}, which a newer smtpguard has made: run that one, "
            f"this version knows schemas up to {head_revision()}"
        )


def _directory() -> Path:
    package = Path(__file__).parents[1]
    within = package / "migrations"
    return within if within.is_dir() else package.parent / "migrations"
