"""The SQLite file of the registry: opening, migrating, one reader, one writer at a time. Knows nothing about models.

Reads come from one connection that only reads; SQLite's `data_version` says in microseconds whether anybody, in
this process or another, has written since. Whoever changes files and rows as one act holds a lock file meanwhile.
A home that cannot be written to, or whose disk is full, is read all the same.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from model_registry.backup import back_up
from model_registry.database_errors import clear_errors
from model_registry.disk import PRIVATE_FILE, make_private_folder, not_writable, open_private, storage_errors
from model_registry.errors import DatabaseTooNew, NotWritable, OutOfDisk, RegistryBusy, RegistryError
from model_registry.schema import HEAD

BUSY_TIMEOUT_S = 10.0
LOCK_TIMEOUT_S = 600.0
WRITABLE_AGAIN_S = 2.0  # how often a database that could only be read is tried for writing
_READ_ONLY = ("mode=ro", "mode=ro&immutable=1")  # the second needs no files beside the database, and sees no log that is there


class Database:
    """Opens (creates, migrates) the file at `path`; `lock` is the lock file of writers. Thread safe; close() when done.

    A file of an earlier revision is copied before it is migrated: `registry.db.before-r0003` stays beside it.
    lock_timeout_s: how long callers wait for other writers, at most ten seconds of it for SQLite's own lock.
    Where nothing can be written, a database of this release is only read, until it can: see `why_read_only`.
    Raises DatabaseTooNew; OutOfDisk or NotWritable when there is none to read; RegistryError when the file is no database.
    """

    def __init__(self, path: Path, lock: Path, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self._path = path
        self._lock = lock
        self._lock_timeout_s = lock_timeout_s
        self._read_lock = threading.Lock()
        self._tried_s = time.monotonic()
        self._num_opened = 1
        self.why_read_only: RegistryError | None = None
        try:
            self._engine, self._reader = self._opened()
        except (OutOfDisk, NotWritable) as error:
            if not path.exists():
                raise
            self._engine, self._reader = self._opened_for_reading(error)
            self.why_read_only = error

    def close(self) -> None:
        with self._read_lock:
            self._reader.close()
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """The reader, for one thread at a time. Each statement sees the newest committed state."""
        with self._read_lock, clear_errors(self._path):
            if self.why_read_only is not None:
                self._look_again()
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
        """Changes whenever another connection (of any process) has committed, and when the database was opened anew."""
        return int(reader.exec_driver_sql("PRAGMA data_version").scalar_one()) + (self._num_opened << 32)

    @contextlib.contextmanager
    def exclusive(self, timeout_s: float | None = None) -> Iterator[None]:
        """Nobody else changes artifact files and their rows meanwhile, in any process.

        timeout_s: instead of the database's own. Raises RegistryBusy, NotWritable, OutOfDisk.
        """
        timeout_s = self._lock_timeout_s if timeout_s is None else timeout_s
        lock = FileLock(self._lock, timeout=timeout_s, mode=PRIVATE_FILE)
        try:
            with storage_errors(self._lock.parent, 1 << 12, "writing to the registry"):
                lock.acquire()
        except Timeout as error:
            raise RegistryBusy(
                f"Another slmops process has been writing for {timeout_s:.0f} s (it holds {self._lock}). "
                "Wait for it, or stop it, and try again."
            ) from error
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, which is SQLite's only one meanwhile, committed at the end of the block.

        Who changes artifact files too holds `exclusive` around it. Raises RegistryBusy, NotWritable, OutOfDisk.
        """
        if self.why_read_only is not None:
            with self._read_lock:
                self._look_again(at_once=True)
            if self.why_read_only is not None:
                raise self.why_read_only
        with clear_errors(self._path), self._engine.begin() as connection:
            yield connection

    def _opened(self) -> tuple[Engine, Connection]:
        for folder in (self._path.parent, self._lock.parent):
            make_private_folder(folder)
        engine = _engine(self._path, min(BUSY_TIMEOUT_S, self._lock_timeout_s))
        with clear_errors(self._path):
            self._create_if_missing()
            if not os.access(self._path, os.W_OK):
                raise not_writable(self._path, "writing to the registry")
            self._bring_to_head(engine)
            return engine, _reader(engine)

    def _opened_for_reading(self, why: RegistryError) -> tuple[Engine, Connection]:
        """Raises `why` when it cannot be read either, or only after a migration."""
        for how in _READ_ONLY:
            engine = _engine(self._path, self._lock_timeout_s, how)
            with contextlib.suppress(DatabaseError):
                if _revision(engine) == HEAD:
                    return engine, _reader(engine)
        raise why

    def _look_again(self, *, at_once: bool = False) -> None:
        """Opens the database anew: for writing if that is possible now, else for reading what is there now."""
        assert self.why_read_only is not None
        now_s = time.monotonic()
        if not at_once and now_s < self._tried_s + WRITABLE_AGAIN_S:
            return
        self._tried_s = now_s
        self._num_opened += 1
        why: RegistryError | None = None
        try:
            engine, reader = self._opened()
        except (OutOfDisk, NotWritable) as error:
            why = error
            engine, reader = self._opened_for_reading(error)
        self._reader.close()
        self._engine.dispose()
        self._engine, self._reader, self.why_read_only = engine, reader, why

    def _create_if_missing(self) -> None:
        """Made whole beside its place, then moved there: SQLite lets no two connections turn one new file to WAL at a time."""
        if self._path.exists():
            return
        with self.exclusive():
            if self._path.exists():
                return
            beside = self._path.with_name(f"{self._path.name}.new")
            with storage_errors(self._path.parent, 1 << 20, "making the registry's database"):
                beside.unlink(missing_ok=True)
                open_private(beside, "xb").close()  # SQLite gives the files that it makes beside it the same permissions
            engine = _engine(beside, BUSY_TIMEOUT_S)
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            _migrate(engine, beside, None)
            engine.dispose()
            beside.replace(self._path)

    def _bring_to_head(self, engine: Engine) -> None:
        if _revision(engine) == HEAD:
            return
        with self.exclusive():
            revision = _revision(engine)
            if revision != HEAD:
                _migrate(engine, self._path, revision)


def _reader(engine: Engine) -> Connection:
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def _revision(engine: Engine) -> str | None:
    """That of the tables, read without any lock; None for a file without tables."""
    with _reader(engine) as connection:
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


def _engine(path: Path, busy_timeout_s: float, read_only: str | None = None) -> Engine:
    """read_only: how SQLite is to open it, as the query of a URI."""
    name, is_uri = (str(path), False) if read_only is None else (f"{path.absolute().as_uri()}?{read_only}", True)

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(name, uri=is_uri, check_same_thread=False, timeout=busy_timeout_s)

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
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
