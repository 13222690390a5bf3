"""The store: SQLAlchemy Core on SQLite and PostgreSQL. It takes and gives domain values; rows never leave it."""

from smtpguard.storage.schema import current_revision, head_revision, is_embedded, upgrade
from smtpguard.storage.store import Store, open_store

__all__ = ["Store", "current_revision", "head_revision", "is_embedded", "open_store", "upgrade"]
