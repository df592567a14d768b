"""A home of an earlier revision opens, with everything in it, and its database as it was stays beside the new one."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from jobs.store import JobStore
from model_registry.backup import backup_path
from model_registry.database import Database
from model_registry.errors import DatabaseTooNew
from model_registry.evaluations import Evaluations
from model_registry.keys import KeyStore
from model_registry.registry import Registry
from model_registry.schema import HEAD
from model_registry.uploads import Uploads

HOMES = Path(__file__).parent / "homes"
TABLES = "SELECT sql FROM sqlite_master WHERE type = 'table' ORDER BY name"


@pytest.fixture(params=["0002"])
def revision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path, revision: str) -> Path:
    """As that revision left it: its database in WAL mode, with rows in most tables."""
    connection = sqlite3.connect(tmp_path / "registry.db")
    connection.executescript((HOMES / f"revision_{revision}.sql").read_text(encoding="utf-8"))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    return tmp_path


def dump(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def opened(home: Path) -> Database:
    return Database(home / "registry.db", home / "locks" / "registry.lock")


def test_everything_is_there_after_the_migration(home: Path) -> None:
    with Registry(home) as registry:
        assert registry.resolve("tiny").label == "tiny:1"
    (file,) = Uploads(home).find()
    assert (file.filename, file.owner) == ("train.jsonl", None)
    jobs = JobStore(home)
    job = jobs.job("job-0123456789ab")
    assert job is not None
    assert job.owner is None
    assert [event.type for event in jobs.events(job.id)] == ["status"]
    jobs.close()
    with Evaluations(home) as kept:
        assert [dict(each.metrics) for each in kept.of("tiny:1")] == [{"f1": 0.5}]
    with KeyStore(home) as keys:
        assert keys.all_keys() == ()
        assert keys.create("app", ["read"]).key in keys.all_keys()


def test_what_was_before_nobody_owns_but_an_admin_sees(home: Path) -> None:
    (file,) = Uploads(home).find()
    assert Uploads(home).find(owner="key-1") == []
    assert Uploads(home).get(file.id, owner=None) == file


def test_the_database_as_it_was_stays_beside(home: Path) -> None:
    before = dump(home / "registry.db")
    opened(home).close()
    copy = backup_path(home / "registry.db", HEAD)
    assert copy.name == f"registry.db.before-r{HEAD}"
    assert dump(copy) == before
    assert os.name != "posix" or copy.stat().st_mode & 0o777 == 0o600
    assert not list(home.glob("*.new*"))


def test_what_the_log_holds_is_in_the_copy(home: Path) -> None:
    """Rows that SQLite has not moved from its write-ahead log into the file."""
    writer = sqlite3.connect(home / "registry.db", isolation_level=None)
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    writer.execute("INSERT INTO models VALUES (7, 'late', '2026-11-01 00:00:00.000000', 1)")
    opened(home).close()
    writer.close()
    assert any("'late'" in line for line in dump(backup_path(home / "registry.db", HEAD)))


def test_a_home_of_today_is_not_copied(home: Path) -> None:
    opened(home).close()
    copy = backup_path(home / "registry.db", HEAD)
    copy.unlink()
    opened(home).close()
    assert not copy.exists()


def test_a_new_home_has_the_same_tables_and_no_copy(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    new = tmp_path_factory.mktemp("new")
    for each in (home, new):
        opened(each).close()
    assert not list(new.glob("*before*"))
    columns = []
    for each in (home, new):
        connection = sqlite3.connect(each / "registry.db")
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns.append({name: sorted(row[1] for row in connection.execute(f"PRAGMA table_info({name})")) for name in names})
        connection.close()
    assert columns[0] == columns[1]


@pytest.mark.parametrize("in_the_way", [".new", ""])
def test_nothing_is_migrated_where_no_copy_can_be_kept(home: Path, in_the_way: str) -> None:
    before = dump(home / "registry.db")
    (home / f"registry.db.before-r{HEAD}{in_the_way}").mkdir()  # stands for whatever makes writing fail
    with pytest.raises(OSError, match="before-r"):
        opened(home)
    assert dump(home / "registry.db") == before
    assert not [path for path in home.glob("*.new") if path.is_file()], "no half copy stays"


def test_a_database_from_the_future_is_neither_copied_nor_touched(home: Path) -> None:
    connection = sqlite3.connect(home / "registry.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(DatabaseTooNew, match="Upgrade slmops"):
        opened(home)
    assert not list(home.glob("*before*"))
