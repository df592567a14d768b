"""The database file: many open a new one at a time, and what is found instead of one is told."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import pytest
from filelock import FileLock

from model_registry.database import Database
from model_registry.errors import OutOfDisk, RegistryBusy, RegistryError
from model_registry.schema import HEAD

NUM_OPENERS = 8


def test_many_open_a_new_file_at_once(tmp_path: Path) -> None:
    for attempt in range(4):
        home = tmp_path / str(attempt)
        barrier = Barrier(NUM_OPENERS)

        def revision(home: Path = home, barrier: Barrier = barrier) -> str | None:
            barrier.wait()
            database = Database(home / "registry.db", home / "registry.lock")
            with database.reading() as reader:
                found = reader.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            database.close()
            return found

        with ThreadPoolExecutor(NUM_OPENERS) as threads:
            assert {each.result() for each in [threads.submit(revision) for _ in range(NUM_OPENERS)]} == {HEAD}
        assert not list(home.glob("*.new*"))


def test_the_file_is_in_wal_mode_and_survives_a_maker_that_died(tmp_path: Path) -> None:
    (tmp_path / "registry.db.new").write_bytes(b"half of a database")
    database = Database(tmp_path / "registry.db", tmp_path / "registry.lock")
    with database.reading() as reader:
        assert reader.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    database.close()


def test_a_full_disk_is_told_as_such_whatever_sqlite_calls_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tmp_path / "registry.db", tmp_path / "locks" / "registry.lock")
    with pytest.raises(RegistryError, match="cannot be used"), database.reading() as reader:
        reader.exec_driver_sql("SELECT nonsense")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OutOfDisk, match="The disk is full"), database.reading() as reader:
        reader.exec_driver_sql("SELECT nonsense")
    database.close()


def test_who_only_reads_waits_for_no_writer(tmp_path: Path) -> None:
    path, lock = tmp_path / "registry.db", tmp_path / "registry.lock"
    Database(path, lock).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as writer, FileLock(lock):
        writer.execute("BEGIN IMMEDIATE")
        database = Database(path, lock, lock_timeout_s=0.0)
        with database.reading() as reader:
            assert reader.exec_driver_sql("SELECT count(*) FROM models").scalar() == 0
        with pytest.raises(RegistryBusy, match="keeps the registry database"), database.writing():
            pass
        with pytest.raises(RegistryBusy, match=r"has been writing for 0 s \(it holds"), database.exclusive():
            pass
        database.close()


def test_a_call_may_wait_otherwise_than_its_database(tmp_path: Path) -> None:
    database = Database(tmp_path / "registry.db", tmp_path / "registry.lock")
    with FileLock(tmp_path / "registry.lock"), pytest.raises(RegistryBusy), database.exclusive(0.0):
        pass
    with database.exclusive(0.0):
        pass
    database.close()
