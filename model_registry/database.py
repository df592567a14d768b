"""The SQLite file of the registry: opening, migrating, one reader, one writer at a time. Knows nothing about models.

Reads come from one connection that only reads; SQLite's `data_version` tells it in microseconds whether anybody, in
this process or another, has written since. Writes hold a lock file: publishing writes files and rows as one act.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from model_registry.backup import back_up
from model_registry.errors import DatabaseTooNew, OutOfDisk, RegistryError
from model_registry.schema import HEAD

BUSY_TIMEOUT_S = 10.0
WRITE_LOCK_TIMEOUT_S = 600.0
_LITTLE_BYTES = 64 << 10  # of free disk: less than SQLite needs beside a database


class Database:
    """Opens (creates, migrates) the file at `path`; `lock` is the lock file of writers. Thread safe; close() when done.

    A file of an earlier revision is copied before it is migrated: `registry.db.before-r0003` stays beside it.
    Raises DatabaseTooNew, or RegistryError when the file is no database.
    """

    def __init__(self, path: Path, lock: Path) -> None:
        self._path = path
        self._lock = lock
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        self._engine = _engine(path)
        self._read_lock = threading.Lock()
        with _clear_errors(path):
            self._create_if_missing()
            self._bring_to_head()
            self._reader = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def close(self) -> None:
        with self._read_lock:
            self._reader.close()
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """The reader, for one thread at a time. Each statement sees the newest committed state."""
        with self._read_lock, _clear_errors(self._path):
            yield self._reader

    @contextlib.contextmanager
    def consistent(self, reader: Connection) -> Iterator[None]:
        """All statements in the block see one and the same state."""
        reader.exec_driver_sql("BEGIN")
        try:
            yield
        finally:
            reader.exec_driver_sql("COMMIT")

    def data_version(self, reader: Connection) -> int:
        """Changes whenever another connection (of any process) has committed."""
        return int(reader.exec_driver_sql("PRAGMA data_version").scalar_one())

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else writes rows or artifact files meanwhile, in any process."""
        try:
            with FileLock(self._lock, timeout=WRITE_LOCK_TIMEOUT_S):
                yield
        except Timeout as error:
            raise RegistryError(
                f"Another slmops process has been writing for {WRITE_LOCK_TIMEOUT_S:.0f} s (it holds {self._lock}). "
                "Wait for it, or stop it, and try again."
            ) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, committed at the end of the block. The caller holds `exclusive`."""
        with _clear_errors(self._path), self._engine.begin() as connection:
            yield connection

    def _create_if_missing(self) -> None:
        """Made whole beside its place, then moved there: SQLite lets no two connections turn one new file to WAL at a time."""
        if self._path.exists():
            return
        with self.exclusive():
            if self._path.exists():
                return
            beside = self._path.with_name(f"{self._path.name}.new")
            beside.unlink(missing_ok=True)
            engine = _engine(beside)
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            _migrate(engine, beside, None)
            engine.dispose()
            beside.replace(self._path)

    def _bring_to_head(self) -> None:
        if self._revision() == HEAD:
            return
        with self.exclusive():
            revision = self._revision()
            if revision != HEAD:
                _migrate(self._engine, self._path, revision)

    def _revision(self) -> str | None:
        with self._engine.connect() as connection:
            exists = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
            if connection.exec_driver_sql(exists).scalar() is None:
                return None
            revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            return None if revision is None else str(revision)


def _migrate(engine: Engine, path: Path, revision: str | None) -> None:
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


def _engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}", poolclass=NullPool, connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S}
    )
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # sqlite3 must not begin transactions of its own; `_on_begin` does
    for pragma in ("synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextlib.contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """SQLite calls a full disk an I/O error where it cannot even make the files beside the database."""
    try:
        yield
    except DatabaseError as error:
        text = str(error.orig)
        if "disk is full" in text or shutil.disk_usage(path.parent).free < _LITTLE_BYTES:
            raise OutOfDisk(
                f"The disk is full: {path} cannot grow. Free some space and try again.", needed_bytes=1 << 20
            ) from error
        raise RegistryError(
            f"The registry database {path} cannot be used ({text}). If it is damaged, move it away and pull the models again."
        ) from error
