"""The database file: many open a new one at a time, and what is found instead of one is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import pytest

from model_registry.database import Database
from model_registry.errors import OutOfDisk, RegistryError
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
