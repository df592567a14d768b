"""The database of a home: opened at its first use, by many at a time, and what is found instead of one is reported."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import pytest
from filelock import FileLock

from model_registry.database import Database
from model_registry.errors import NotWritable, OutOfDisk, RegistryBusy, RegistryError
from model_registry.schema import HEAD, Subject

NUM_OPENERS = 8


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path) as database:
        yield database


def count_of(database: Database, subject: Subject) -> int:
    with database.reading() as reader:
        return database.change_count(reader, subject)


def test_many_open_a_new_file_at_once(tmp_path: Path) -> None:
    for attempt in range(4):
        home = tmp_path / str(attempt)
        barrier = Barrier(NUM_OPENERS)

        def revision(home: Path = home, barrier: Barrier = barrier) -> str | None:
            barrier.wait()
            with Database(home) as database, database.reading() as reader:
                return reader.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()

        with ThreadPoolExecutor(NUM_OPENERS) as threads:
            assert {each.result() for each in [threads.submit(revision) for _ in range(NUM_OPENERS)]} == {HEAD}
        assert not list(home.glob("*.new*"))


def test_nothing_is_made_before_it_is_used(tmp_path: Path) -> None:
    with Database(tmp_path / "home") as database:
        assert not database.exists()
        assert not (tmp_path / "home").exists()
        database.open()
        assert database.exists()
    with Database(tmp_path / "home") as again:
        assert again.exists()


def test_a_use_after_the_end_opens_it_anew(database: Database) -> None:
    assert count_of(database, Subject.MODELS) == 0
    database.close()
    database.close()
    assert count_of(database, Subject.MODELS) == 0


def test_a_home_that_cannot_be_made_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with Database(tmp_path / "home") as database:
        for _ in range(2):
            with pytest.raises(NotWritable, match="is a file"):
                database.open()
        (tmp_path / "home").unlink()
        database.open()


def test_the_file_is_in_wal_mode_and_survives_a_maker_that_died(database: Database) -> None:
    (database.home / "registry.db.new").write_bytes(b"half of a database")
    with database.reading() as reader:
        assert reader.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_full_disk_is_reported_as_such_whatever_sqlite_calls_it(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RegistryError, match="cannot be used"), database.reading() as reader:
        reader.exec_driver_sql("SELECT nonsense")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OutOfDisk, match="The disk is full"), database.reading() as reader:
        reader.exec_driver_sql("SELECT nonsense")


def test_who_only_reads_waits_for_no_writer(tmp_path: Path) -> None:
    with Database(tmp_path) as made:
        made.open()
    with (
        closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as writer,
        FileLock(tmp_path / "locks/registry.lock"),
        Database(tmp_path, lock_timeout_s=0.0) as database,
    ):
        writer.execute("BEGIN IMMEDIATE")
        with database.reading() as reader:
            assert reader.exec_driver_sql("SELECT count(*) FROM models").scalar() == 0
        with pytest.raises(RegistryBusy, match="keeps the registry database"), database.writing():
            pass
        with pytest.raises(RegistryBusy, match=r"has been writing for 0 s \(it holds"), database.exclusive():
            pass


@pytest.mark.parametrize("act", [Database.exclusive, Database.writing], ids=["files and rows", "rows"])
def test_a_thread_may_wait_otherwise_than_its_database(database: Database, act: object) -> None:
    database.open()
    held = closing(sqlite3.connect(database.home / "registry.db", isolation_level=None))
    with held as other, FileLock(database.home / "locks/registry.lock"):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryBusy), database.waiting(0.0), act(database):  # type: ignore[operator]
            pass
    with database.waiting(0.0), act(database):  # type: ignore[operator]
        pass


def test_each_subject_has_a_count_of_its_changes(database: Database) -> None:
    before = {subject: count_of(database, subject) for subject in Subject}
    with database.writing(Subject.KEYS):
        pass
    with database.writing():
        pass
    with pytest.raises(ZeroDivisionError), database.writing(Subject.MODELS):
        raise ZeroDivisionError
    after = {subject: count_of(database, subject) for subject in Subject}
    assert after == before | {Subject.KEYS: before[Subject.KEYS] + 1}


def test_a_change_of_another_connection_is_counted(database: Database, tmp_path: Path) -> None:
    before = count_of(database, Subject.MODELS)
    with Database(tmp_path) as other, other.writing(Subject.MODELS):
        pass
    assert count_of(database, Subject.MODELS) == before + 1
