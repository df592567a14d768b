"""How often models and keys were changed, for those who keep them in memory."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    counts = op.create_table(
        "change_counts",
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_change_counts"),
    )
    op.bulk_insert(counts, [{"subject": subject, "number": 0} for subject in ("models", "keys")])


def downgrade() -> None:
    op.drop_table("change_counts")
