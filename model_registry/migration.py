"""Brings the tables of a database to the newest revision, after a copy of it was made beside it.

Run by `database`; the revisions are in `migrations/versions`.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, column, inspect, select, table

from model_registry.errors import DatabaseTooNew
from model_registry.schema import HEAD
from model_registry.sqlite import copy_to, open_reader


def backup_path(path: Path, revision: str) -> Path:
    """The path of the backup of the database at `path` before this revision: `registry.db.before-r0003`."""
    return path.with_name(f"{path.name}.before-r{revision}")


def back_up(engine: Engine, path: Path, revision: str) -> Path:
    """Copies the database whole and consistent, its write-ahead log included; replaces an earlier copy of the same name.

    Raises sqlalchemy's DatabaseError, e.g. when the disk is full; then no copy is left.
    """
    copy = backup_path(path, revision)
    beside = copy.with_name(f"{copy.name}.new")
    beside.unlink(missing_ok=True)
    try:
        copy_to(engine, beside)
        beside.replace(copy)
    finally:
        beside.unlink(missing_ok=True)
    return copy


_VERSION_TABLE = "alembic_version"


def revision_of(engine: Engine) -> str | None:
    """The revision of the tables, read without any lock; None for a database without tables."""
    with open_reader(engine) as connection:
        if not inspect(connection).has_table(_VERSION_TABLE):
            return None
        revision = connection.execute(select(column("version_num")).select_from(table(_VERSION_TABLE))).scalar()
        return None if revision is None else str(revision)


def migrate(engine: Engine, path: Path, revision: str | None) -> None:
    """From `revision`, or from nothing, to HEAD. What was there is copied beside `path` first (see `back_up`).

    Nobody else migrates meanwhile. Raises DatabaseTooNew for a revision of a later release; then nothing has changed.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise DatabaseTooNew(
            f"{path} was written by a newer slmops (its tables are at revision {revision}, this one knows up to "
            f"{HEAD}). Upgrade slmops, or set SLMOPS_HOME to another folder."
        )
    if revision is not None:
        back_up(engine, path, HEAD)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
