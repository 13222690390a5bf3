"""A sample of the ledger's times in the place of an index on all of them"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SAMPLED = sa.text("id & 255 = 0")


def upgrade() -> None:
    op.drop_index("ix_ledger_at", "ledger")
    op.create_index("ix_ledger_sampled_at", "ledger", ["at"], sqlite_where=SAMPLED, postgresql_where=SAMPLED)


def downgrade() -> None:
    op.drop_index("ix_ledger_sampled_at", "ledger")
    op.create_index("ix_ledger_at", "ledger", ["at"])
