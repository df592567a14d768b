"""What SQLite's errors mean for who uses the registry: busy, a full disk, a folder that must not be written to, or damage."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from model_registry.disk import not_writable
from model_registry.errors import OutOfDisk, RegistryBusy, RegistryError

_LITTLE_BYTES = 64 << 10  # of free disk: less than SQLite needs beside a database
_FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMOPEN", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_TRUNCATE")
_DENIED = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR_SHMOPEN")
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")


@contextlib.contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turns SQLAlchemy's errors about the database at `path` into those of the registry."""
    try:
        yield
    except DatabaseError as error:
        raise _meaning(error.orig, path) from error


def _meaning(error: BaseException | None, path: Path) -> RegistryError:
    """SQLite calls a full disk an I/O error, or a file that cannot be opened, where it cannot make files beside the database."""
    name = getattr(error, "sqlite_errorname", "") if isinstance(error, sqlite3.Error) else ""
    if name.startswith(_BUSY):
        return RegistryBusy(f"Another process keeps the registry database {path} locked. Wait for it, or stop it, and try again.")
    if name.startswith(_DENIED) and not all(_is_writable(each) for each in (path.parent, path)):
        denied = path.parent if _is_writable(path) else path
        return not_writable(denied, "writing to the registry")
    if name.startswith(_FULL) or shutil.disk_usage(path.parent).free < _LITTLE_BYTES:
        message = f"The disk is full: {path} cannot grow. Free some space and try again."
        return OutOfDisk(message, needed_bytes=1 << 20)
    return RegistryError(
        f"The registry database {path} cannot be used ({error}). If it is damaged, move it away and pull the models again."
    )


def _is_writable(path: Path) -> bool:
    return not path.exists() or os.access(path, os.W_OK)
