"""Alembic's entry: runs the revisions on the connection it is given. Owns no database address and no settings."""

from __future__ import annotations

from alembic import context

from model_registry.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
