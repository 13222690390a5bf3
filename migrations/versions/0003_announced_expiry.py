"""When the expiry of a quarantined message was announced"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True).with_variant(sa.BigInteger, "sqlite")


def upgrade() -> None:
    op.add_column("quarantined_messages", sa.Column("announced_at", TIME))


def downgrade() -> None:
    op.drop_column("quarantined_messages", "announced_at")
