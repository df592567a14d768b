"""What a variant is for becomes a role instead of a provider family; what its graph is moves to it from the manifest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_ROLES = ("checkpoint", "adapter")  # provider families before
_versions = sa.table("versions", sa.column("id", sa.Integer), sa.column("manifest", sa.JSON))
_variants = sa.table(
    "variants",
    sa.column("id", sa.Integer),
    sa.column("version_id", sa.Integer),
    sa.column("provider_family", sa.String),
    sa.column("role", sa.String),
    sa.column("graph", sa.String),
)


def upgrade() -> None:
    """Names, and so folders and digests, stay as they are."""
    op.add_column("variants", sa.Column("role", sa.String, nullable=False, server_default="serve"))
    op.add_column("variants", sa.Column("graph", sa.String, nullable=True))
    connection = op.get_bind()
    for role in _ROLES:
        rows = sa.update(_variants).where(_variants.c.provider_family == role)
        connection.execute(rows.values(role=role, provider_family="any"))
    for row in connection.execute(sa.select(_versions.c.id, _versions.c.manifest)).all():
        graph = (row.manifest.get("parameters") or {}).get("graph") or "gqa"
        rows = sa.update(_variants).where(_variants.c.version_id == row.id, _variants.c.role == "serve")
        connection.execute(rows.values(graph=graph))


def downgrade() -> None:
    connection = op.get_bind()
    for role in _ROLES:
        connection.execute(sa.update(_variants).where(_variants.c.role == role).values(provider_family=role))
    for column in ("graph", "role"):
        op.drop_column("variants", column)
