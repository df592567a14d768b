"""What is SQLite's own: how its file is opened, how transactions begin, how it reports commits, and what its errors mean.

Beside `database` and `migration` the only file that knows which database this is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from model_registry.disk import PRIVATE_FILE, not_writable
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


READ_ONLY_MODES = ("mode=ro", "mode=ro&immutable=1")  # the second needs no files beside the database, and ignores its log


def open_engine(path: Path, busy_timeout_s: float, read_only_mode: str | None = None) -> Engine:
    """Connects anew for each use. busy_timeout_s: how long a statement waits for another connection's transaction.

    read_only_mode: one of READ_ONLY_MODES, or None to read and write.
    """
    uri = f"{path.absolute().as_uri()}?{read_only_mode}"
    name, is_uri = (str(path), False) if read_only_mode is None else (uri, True)

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(name, uri=is_uri, check_same_thread=False, timeout=busy_timeout_s)

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def open_reader(engine: Engine) -> Connection:
    """A connection without transactions: each statement sees the newest committed state."""
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def use_write_ahead_log(engine: Engine) -> None:
    """From now on, in every process, readers and a writer do not wait for each other."""
    with open_reader(engine) as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")


def set_busy_timeout(connection: Connection, busy_timeout_s: float) -> None:
    """Before the connection's first transaction: how long it waits for others to end."""
    raw: Any = connection.connection.driver_connection
    raw.execute(f"PRAGMA busy_timeout = {round(busy_timeout_s * 1000)}")


def copy_to(engine: Engine, path: Path) -> None:
    """A whole and consistent copy of the database, its write-ahead log included, in the new file `path`, for this user alone.

    Waits for no writer. Raises sqlalchemy's DatabaseError, e.g. when the disk is full.
    """
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE_FILE))  # VACUUM INTO takes an empty file
    with open_reader(engine) as connection:
        connection.exec_driver_sql("VACUUM INTO ?", (str(path),))


def data_version(reader: Connection) -> int:
    """Another number whenever another connection, of any process, has committed. Read in microseconds."""
    return int(reader.exec_driver_sql("PRAGMA data_version").scalar_one())


def begin_reading(reader: Connection) -> None:
    """Statements see one and the same state until `end_reading`."""
    reader.exec_driver_sql("BEGIN")


def end_reading(reader: Connection) -> None:
    reader.exec_driver_sql("COMMIT")


def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # sqlite3 must not begin transactions of its own; `_on_begin` does
    for pragma in ("synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
