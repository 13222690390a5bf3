"""The tables of the store.

An absent customer is ``''`` in a table and None in the domain. Every time is UTC to the microsecond. Keys compare byte
by byte on both engines, so that no locale decides which address is which. Bindings and vouchers name an address by its
number: what is imported together lies together, however its addresses are spelt. Which rows an index leaves out only
the migrations tell the engines: to say it here, too, would load SQLAlchemy's parts for both.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Dialect,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def microseconds(at: datetime) -> int:
    """Count the microseconds since 1970 of an aware time."""
    since = at - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds  # a division takes five times as long


def driver_time(value: Any) -> datetime | None:
    """Read what a driver gives of a time: the microseconds of SQLite, PostgreSQL's time in the zone of the session."""
    if value is None:
        return None
    at: datetime = EPOCH + value * MICROSECOND if isinstance(value, int) else value.astimezone(UTC)
    return at


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, in UTC; SQLite, which has no type for it, counts the microseconds since 1970."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """A number on SQLite."""
        return BigInteger() if dialect.name == "sqlite" else self.impl_instance

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | int | None:
        """Refuse a time without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return microseconds(value) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Read it back."""
        del dialect
        return driver_time(value)


def storable(words: str) -> str:
    """Replace what no engine can keep as text, NUL and lone surrogates, by U+FFFD."""
    if words.isascii() and "\0" not in words:  # nearly all words
        return words
    return words.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Words(TypeDecorator[str]):
    """Text from outside that is only shown to people: an odd character in it must not keep a message out."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Make it storable."""
        del dialect
        return None if value is None else storable(value)


Key = Text().with_variant(Text(collation="C"), "postgresql")
Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only where it says INTEGER

addresses = Table(
    "addresses",
    metadata,
    Column("id", Number, Identity(), primary_key=True),
    Column("lookup_key", Key, nullable=False),
    Column("address", Text, nullable=False),
    Column("flag_reason", Words),
    Column("flag_since", UtcDateTime),
    Column("flag_by", Words),
    Column("first_seen", UtcDateTime),  # NULL: not on record, though live traffic has bound customers to it
    Column("last_seen", UtcDateTime),
    Index("uq_addresses_lookup_key", "lookup_key", unique=True),
    Index("ix_addresses_flagged", "lookup_key"),  # WHERE flag_since IS NOT NULL
)

bindings = Table(
    "bindings",
    metadata,
    Column("address_id", Number, ForeignKey("addresses.id"), primary_key=True),
    Column("customer", Key, primary_key=True),
    Column("first_seen", UtcDateTime, nullable=False),
    Column("last_seen", UtcDateTime, nullable=False),
    CheckConstraint("customer <> ''", name="customer_named"),
    sqlite_with_rowid=False,
)

vouchers = Table(
    "vouchers",
    metadata,
    Column("id", Number, Identity(), primary_key=True),
    Column("address_id", Number, ForeignKey("addresses.id"), nullable=False),
    Column("customer", Key, nullable=False),
    Column("method", Text, nullable=False),
    Column("verified_at", UtcDateTime, nullable=False),
    Column("verified_by", Words, nullable=False),
    Column("evidence", Words, nullable=False),
    Column("valid_until", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("import_source", Key),  # of an import, which vouches once; NULL otherwise, and NULLs are never the same
    Index("uq_vouchers_import", "address_id", "customer", "import_source", unique=True),
)

invitations = Table(
    "invitations",
    metadata,
    Column("id", Key, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("address_id", Number, ForeignKey("addresses.id"), nullable=False),
    Column("address", Text, nullable=False),  # as it was written to
    Column("customer", Key, nullable=False),
    Column("token_digest", Key, nullable=False),
    Column("language", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Words, nullable=False),
    Column("sent_at", UtcDateTime),  # NULL: the smarthost has not taken it
    Column("expires_at", UtcDateTime, nullable=False),
    Column("challenge_label", Words),
    Column("challenge_hash", Text),
    Column("tries_left", Integer, nullable=False),
    Column("answered_at", UtcDateTime),
    Column("answer", Text),
    Column("answered_from", Words),
    Column("voucher_id", Number, ForeignKey("vouchers.id")),  # that a Yes gave
    Index("uq_invitations_token_digest", "token_digest", unique=True),
    Index("ix_invitations_address_id", "address_id", "created_at"),
    Index("ix_invitations_created_at", "created_at"),
)

quarantined_messages = Table(
    "quarantined_messages",
    metadata,
    Column("id", Key, primary_key=True),
    Column("transaction_id", Key, nullable=False),
    Column("state", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("recipient_key", Key, nullable=False),
    Column("reverse_path", Text),
    Column("reverse_path_key", Key),
    Column("parameters", JSON, nullable=False),
    Column("application", Text, nullable=False),
    Column("customer", Key, nullable=False),
    Column("reason", Text, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("subject", Words, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("decided_at", UtcDateTime),
    Column("decided_by", Words),
    Column("decided_why", Words),
    Column("announced_at", UtcDateTime),  # when its expiry was announced
    Index("ix_quarantined_messages_state", "state", "id"),
    Index("ix_quarantined_messages_transaction_id", "transaction_id"),
    Index("ix_quarantined_messages_recipient_key", "recipient_key", "id"),
)

message_contents = Table(
    "message_contents",
    metadata,
    Column("transaction_id", Key, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("subject", Words, nullable=False),
    Column("sender", Words, nullable=False),
    Column("date", Words, nullable=False),
    Column("message_id", Words, nullable=False),
)

allowances = Table(
    "allowances",
    metadata,
    Column("day", Date, primary_key=True),  # in UTC; first, since old days are removed
    Column("kind", Key, primary_key=True),
    Column("subject", Key, primary_key=True),
    Column("count", Integer, nullable=False),
    sqlite_with_rowid=False,
)

SAMPLED = text("id & 255 = 0")
"""Rows of the ledger whose times are indexed: to index all would cost a commit of the ledger a quarter more."""

ledger = Table(
    "ledger",
    metadata,
    Column("id", Number, Identity(), primary_key=True),
    Column("transaction_id", Key, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("application", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("recipient_key", Key, nullable=False),
    Column("customer", Key, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("would_be", Text),
    Column("smarthost_reply", Words, nullable=False),
    Column("message_id", Words, nullable=False),
    Column("subject_digest", Text, nullable=False),
    Index("ix_ledger_sampled_at", "at"),  # WHERE SAMPLED
    Index("ix_ledger_recipient_key", "recipient_key", "id"),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", Number, Identity(), primary_key=True),
    Column("name", Key, nullable=False),
    Column("token_digest", Key, nullable=False),
    Column("scopes", Text, nullable=False),  # with a space between them
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Words, nullable=False),
    Column("last_used", Date),
    Column("revoked_at", UtcDateTime),
    Index("uq_api_tokens_name", "name", unique=True),
    Index("uq_api_tokens_token_digest", "token_digest", unique=True),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("token_id", Number, ForeignKey("api_tokens.id"), primary_key=True),
    Column("key", Key, primary_key=True),
    Column("request_digest", Text, nullable=False),
    Column("status", Integer),  # NULL: there is no answer yet
    Column("body", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Index("ix_idempotency_keys_created_at", "created_at"),
)
