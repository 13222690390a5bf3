"""Alembic's environment: on the connection that ``storage.schema`` hands in, else on the store of the settings."""

from alembic import context
from sqlalchemy import Connection

from smtpguard.settings import load_settings
from smtpguard.storage.database import database_at
from smtpguard.storage.schema import locked
from smtpguard.storage.tables import metadata


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


def migrate_store_of_the_settings() -> None:
    database = database_at(load_settings(None).store.url)
    database.create()
    with locked(database) as connection:
        migrate(connection)


if (handed_in := context.config.attributes.get("connection")) is not None:
    migrate(handed_in)
else:
    migrate_store_of_the_settings()
