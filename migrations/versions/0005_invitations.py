"""Invitations, and what waits for a recipient found by the recipient"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True).with_variant(sa.BigInteger, "sqlite")


def upgrade() -> None:
    op.create_table(
        "invitations",
        sa.Column("id", KEY, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("address_id", NUMBER, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("customer", KEY, nullable=False),
        sa.Column("token_digest", KEY, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("sent_at", TIME),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("challenge_label", sa.Text),
        sa.Column("challenge_hash", sa.Text),
        sa.Column("tries_left", sa.Integer, nullable=False),
        sa.Column("answered_at", TIME),
        sa.Column("answer", sa.Text),
        sa.Column("answered_from", sa.Text),
        sa.Column("voucher_id", NUMBER),
        sa.ForeignKeyConstraint(["address_id"], ["addresses.id"], name="fk_invitations_address_id"),
        sa.ForeignKeyConstraint(["voucher_id"], ["vouchers.id"], name="fk_invitations_voucher_id"),
        sa.PrimaryKeyConstraint("id", name="pk_invitations"),
    )
    op.create_index("uq_invitations_token_digest", "invitations", ["token_digest"], unique=True)
    op.create_index("ix_invitations_address_id", "invitations", ["address_id", "created_at"])
    op.create_index("ix_invitations_created_at", "invitations", ["created_at"])
    op.create_index("ix_quarantined_messages_recipient_key", "quarantined_messages", ["recipient_key", "id"])


def downgrade() -> None:
    op.drop_index("ix_quarantined_messages_recipient_key", "quarantined_messages")
    op.drop_table("invitations")
