"""A copy of the registry database beside it, made before its tables change. Knows no tables."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Engine

_MODE = 0o600  # it holds what the database holds


def backup_path(path: Path, revision: str) -> Path:
    """Where the database at `path` is kept as it was before this revision: `registry.db.before-r0003`."""
    return path.with_name(f"{path.name}.before-r{revision}")


def back_up(engine: Engine, path: Path, revision: str) -> Path:
    """Copies the database whole and consistent, its write-ahead log included; replaces an earlier copy of the same name.

    Raises sqlalchemy's DatabaseError, e.g. when the disk is full; then no copy is left.
    """
    copy = backup_path(path, revision)
    beside = copy.with_name(f"{copy.name}.new")
    beside.unlink(missing_ok=True)
    try:
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _MODE))  # VACUUM INTO takes an empty file
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM INTO ?", (str(beside),))
        beside.replace(copy)
    finally:
        beside.unlink(missing_ok=True)
    return copy
