"""First tables"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True).with_variant(sa.BigInteger, "sqlite")


def upgrade() -> None:
    create_address_book()
    create_quarantine()
    create_ledger()
    create_audit_log()


def create_address_book() -> None:
    op.create_table(
        "addresses",
        sa.Column("id", NUMBER, sa.Identity(), nullable=False),
        sa.Column("lookup_key", KEY, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("flag_reason", sa.Text),
        sa.Column("flag_since", TIME),
        sa.Column("flag_by", sa.Text),
        sa.Column("first_seen", TIME),
        sa.Column("last_seen", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_addresses"),
    )
    op.create_index("uq_addresses_lookup_key", "addresses", ["lookup_key"], unique=True)
    op.create_index(
        "ix_addresses_flagged",
        "addresses",
        ["lookup_key"],
        sqlite_where=sa.text("flag_since IS NOT NULL"),
        postgresql_where=sa.text("flag_since IS NOT NULL"),
    )
    op.create_table(
        "bindings",
        sa.Column("address_id", NUMBER, nullable=False),
        sa.Column("customer", KEY, nullable=False),
        sa.Column("first_seen", TIME, nullable=False),
        sa.Column("last_seen", TIME, nullable=False),
        sa.CheckConstraint("customer <> ''", name=op.f("ck_bindings_customer_named")),
        sa.ForeignKeyConstraint(["address_id"], ["addresses.id"], name="fk_bindings_address_id"),
        sa.PrimaryKeyConstraint("address_id", "customer", name="pk_bindings"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "vouchers",
        sa.Column("id", NUMBER, sa.Identity(), nullable=False),
        sa.Column("address_id", NUMBER, nullable=False),
        sa.Column("customer", KEY, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("verified_at", TIME, nullable=False),
        sa.Column("verified_by", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("valid_until", TIME),
        sa.Column("revoked_at", TIME),
        sa.Column("import_source", KEY),
        sa.ForeignKeyConstraint(["address_id"], ["addresses.id"], name="fk_vouchers_address_id"),
        sa.PrimaryKeyConstraint("id", name="pk_vouchers"),
    )
    op.create_index("uq_vouchers_import", "vouchers", ["address_id", "customer", "import_source"], unique=True)


def create_quarantine() -> None:
    op.create_table(
        "quarantined_messages",
        sa.Column("id", KEY, nullable=False),
        sa.Column("transaction_id", KEY, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("recipient_key", KEY, nullable=False),
        sa.Column("reverse_path", sa.Text),
        sa.Column("reverse_path_key", KEY),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("application", sa.Text, nullable=False),
        sa.Column("customer", KEY, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("decided_at", TIME),
        sa.Column("decided_by", sa.Text),
        sa.Column("decided_why", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_quarantined_messages"),
    )
    op.create_index("ix_quarantined_messages_state", "quarantined_messages", ["state", "id"])
    op.create_index("ix_quarantined_messages_transaction_id", "quarantined_messages", ["transaction_id"])
    op.create_table(
        "message_contents",
        sa.Column("transaction_id", KEY, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("date", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("transaction_id", name="pk_message_contents"),
    )


def create_ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("id", NUMBER, sa.Identity(), nullable=False),
        sa.Column("transaction_id", KEY, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("application", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("recipient_key", KEY, nullable=False),
        sa.Column("customer", KEY, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("would_be", sa.Text),
        sa.Column("smarthost_reply", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("subject_digest", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
    )
    op.create_index("ix_ledger_at", "ledger", ["at"])
    op.create_index("ix_ledger_recipient_key", "ledger", ["recipient_key", "id"])


def create_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", NUMBER, autoincrement=False, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("previous_hash", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )


def downgrade() -> None:
    op.drop_table("audit_log")
    op.drop_table("ledger")
    op.drop_table("message_contents")
    op.drop_table("quarantined_messages")
    op.drop_table("vouchers")
    op.drop_table("bindings")
    op.drop_table("addresses")
