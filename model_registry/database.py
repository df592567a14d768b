"""The database of a home: opening, migrating, reading, and one writer at a time. Knows nothing about models.

The one way to everything that is kept in tables. Stores are built on a `Database` and use what is public here; which database it
is, and how it is opened, only this file, `sqlite` and `migration` know. A home that cannot be written to, or whose disk is full,
is read all the same.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import DatabaseError

from model_registry import sqlite
from model_registry.disk import DAEMON_LOCK, PRIVATE_FILE, make_private_folder, not_writable, open_private, storage_errors
from model_registry.errors import NotWritable, OutOfDisk, RegistryBusy, RegistryError
from model_registry.migration import migrate, revision_of
from model_registry.schema import HEAD, Subject, change_counts
from model_registry.sqlite import clear_errors

DATABASE_NAME = "registry.db"  # in a home
REGISTRY_LOCK = "locks/registry.lock"  # in a home: held by whoever changes artifact files and their rows
BUSY_TIMEOUT_S = 10.0
LOCK_TIMEOUT_S = 600.0
WRITABLE_AGAIN_S = 2.0  # how often a database that could only be read is tried for writing


class Database:
    """The database of the home at `home`, opened (created, migrated) at its first use, or by `open`. Thread safe.

    close() when done; a use after that opens it anew. One process builds one, and hands it to its stores.
    lock_timeout_s: how long calls wait for other writers, at most ten seconds of it for a transaction; see `waiting`.
    Where nothing can be written, a database of this release is only read, until it can be: see `why_read_only`.
    A database of an earlier release is migrated, unless that release's daemon runs: RegistryBusy.
    Each use raises DatabaseTooNew; OutOfDisk or NotWritable when there is none to read; RegistryError when the file is no database.
    """

    def __init__(self, home: Path, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self.home = home
        self.lock_timeout_s = lock_timeout_s
        self.why_read_only: RegistryError | None = None
        self._path = home / DATABASE_NAME
        self._lock = home / REGISTRY_LOCK
        self._read_lock = threading.Lock()
        self._own_wait = threading.local()
        self._opened: tuple[Engine, Connection] | None = None  # for writing; the one that reads
        self._num_opened = 0
        self._tried_at = 0.0
        self._counted: tuple[tuple[int, int], Mapping[str, int]] | None = None

    def exists(self) -> bool:
        """Whether there is anything to read: False before anybody has opened it for the first time."""
        return self._opened is not None or self._path.exists()

    def open(self) -> None:
        """Opens it now. Nothing happens when it is open."""
        with self._read_lock:
            self._current()

    def close(self) -> None:
        with self._read_lock:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- reading ----

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for one thread at a time. Each statement sees the newest committed state, and waits for no writer.

        Other blocks of this class wait for its end, so a thread opens none of them inside it.
        """
        with self._read_lock, clear_errors(self._path):
            yield self._current()[1]

    @contextlib.contextmanager
    def consistent(self, reader: Connection) -> Iterator[None]:
        """All statements in the block see one and the same state."""
        sqlite.begin_reading(reader)
        try:
            yield
        finally:
            sqlite.end_reading(reader)

    def change_count(self, reader: Connection, subject: Subject) -> int:
        """How often anybody, in any process, has changed what belongs to `subject`. Microseconds while nobody commits."""
        version = self._num_opened, sqlite.data_version(reader)
        if self._counted is None or self._counted[0] != version:
            rows = reader.execute(select(change_counts.c.subject, change_counts.c.number))
            self._counted = version, {str(row.subject): int(row.number) for row in rows}
        return self._counted[1][subject]

    def of(self, home: Path) -> Database:
        """The database of another home."""
        return Database(home)

    def copied_to(self, home: Path) -> Database:
        """A copy, as this database is now and whole, as the database of a folder that has none. Waits for no writer.

        Raises OutOfDisk, NotWritable.
        """
        path = home / DATABASE_NAME
        with self._read_lock, clear_errors(path):
            sqlite.copy_to(self._current()[0], path)
        return Database(home)

    # ---- writing ----

    @contextlib.contextmanager
    def waiting(self, wait_s: float) -> Iterator[None]:
        """In the block, this thread's calls wait so long for other writers, instead of lock_timeout_s."""
        self._own_wait.s = wait_s
        try:
            yield
        finally:
            del self._own_wait.s

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else, in any process, changes artifact files and their rows meanwhile.

        Raises RegistryBusy, NotWritable, OutOfDisk.
        """
        self.open()  # which may need the lock itself
        with self._locked():
            yield

    @contextlib.contextmanager
    def writing(self, *changed: Subject) -> Iterator[Connection]:
        """One transaction, the database's only one meanwhile, committed at the end of the block. changed: whose tables it changes.

        Who changes artifact files too holds `exclusive` around it. Raises RegistryBusy, NotWritable, OutOfDisk.
        """
        with self._read_lock:
            engine, _ = self._current(at_once=True)
            if self.why_read_only is not None:
                raise self.why_read_only
        with clear_errors(self._path), engine.connect() as connection:
            sqlite.set_busy_timeout(connection, min(BUSY_TIMEOUT_S, self._wait_s))
            with connection.begin():
                yield connection
                if changed:
                    counts = update(change_counts).where(change_counts.c.subject.in_(changed))
                    connection.execute(counts.values(number=change_counts.c.number + 1))

    # ---- inside ----

    @property
    def _wait_s(self) -> float:
        return float(getattr(self._own_wait, "s", self.lock_timeout_s))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        timeout_s = self._wait_s
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

    def _current(self, *, at_once: bool = False) -> tuple[Engine, Connection]:
        """Opens the database if need be; one that could only be read, again from time to time, or at_once. Holds the read lock."""
        now_s = time.monotonic()
        is_due = at_once or now_s >= self._tried_at + WRITABLE_AGAIN_S
        if self._opened is None or (self.why_read_only is not None and is_due):
            self._tried_at = now_s
            why: RegistryError | None = None
            try:
                opened = self._open_to_write()
            except (OutOfDisk, NotWritable) as error:
                if not self._path.exists():
                    raise
                why, opened = error, self._open_to_read(error)
            self._close()
            self._num_opened += 1
            self._opened, self.why_read_only = opened, why
        return self._opened

    def _close(self) -> None:
        if self._opened is not None:
            engine, reader = self._opened
            reader.close()
            engine.dispose()
        self._opened = self.why_read_only = None

    def _open_to_write(self) -> tuple[Engine, Connection]:
        for folder in (self._path.parent, self._lock.parent):
            make_private_folder(folder)
        engine = sqlite.open_engine(self._path, min(BUSY_TIMEOUT_S, self._wait_s))
        with clear_errors(self._path):
            self._create_if_missing()
            if not os.access(self._path, os.W_OK):
                raise not_writable(self._path, "writing to the registry")
            self._bring_to_head(engine)
            return engine, sqlite.open_reader(engine)

    def _open_to_read(self, why: RegistryError) -> tuple[Engine, Connection]:
        """Raises `why` when it cannot be read either, or only after a migration, which its message then says."""
        is_earlier = False
        for mode in sqlite.READ_ONLY_MODES:
            engine = sqlite.open_engine(self._path, self._wait_s, mode)
            with contextlib.suppress(DatabaseError):
                revision = revision_of(engine)
                if revision == HEAD:
                    return engine, sqlite.open_reader(engine)
                is_earlier = revision is not None and revision < HEAD
        if is_earlier:
            why.prefix("An earlier slmops made this registry, and this release can only read it once its tables are changed.")
        raise why

    def _create_if_missing(self) -> None:
        """Made whole beside its place, then moved there: SQLite lets no two connections turn one new file to WAL at a time."""
        if self._path.exists():
            return
        with self._locked():
            if self._path.exists():
                return
            beside = self._path.with_name(f"{self._path.name}.new")
            with storage_errors(self._path.parent, 1 << 20, "making the registry's database"):
                beside.unlink(missing_ok=True)
                open_private(beside, "xb").close()  # SQLite gives the files that it makes beside it the same permissions
            engine = sqlite.open_engine(beside, BUSY_TIMEOUT_S)
            sqlite.use_write_ahead_log(engine)
            migrate(engine, beside, None)
            engine.dispose()
            beside.replace(self._path)

    def _bring_to_head(self, engine: Engine) -> None:
        if revision_of(engine) == HEAD:
            return
        with self._locked():
            revision = revision_of(engine)
            if revision is None:
                migrate(engine, self._path, None)
            elif revision != HEAD:
                with self._without_a_daemon():
                    migrate(engine, self._path, revision)

    @contextlib.contextmanager
    def _without_a_daemon(self) -> Iterator[None]:
        """No daemon runs in the block. One that runs already could not read the new tables: raises RegistryBusy."""
        path = self.home / DAEMON_LOCK
        lock = FileLock(path, mode=PRIVATE_FILE)
        try:
            with storage_errors(path.parent, 1 << 12, "migrating the registry"):
                lock.acquire(timeout=0)
        except Timeout as error:
            raise RegistryBusy(
                f"A daemon of an earlier slmops runs on {self.home}, whose tables this release has to change first. "
                "Stop that daemon, then try again."
            ) from error
        try:
            yield
        finally:
            lock.release()
