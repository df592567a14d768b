"""A home of an earlier revision opens, with everything in it, and its database as it was stays beside the new one."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from filelock import FileLock

from jobs.store import JobStore
from model_registry import migrations
from model_registry.database import Database
from model_registry.disk import DAEMON_LOCK
from model_registry.errors import DatabaseTooNew, NotWritable, RegistryBusy
from model_registry.evaluations import EvaluationStore
from model_registry.keys import KeyStore
from model_registry.migration import backup_path
from model_registry.registry import open_registry
from model_registry.schema import HEAD
from model_registry.uploads import FileStore

HOMES = Path(__file__).parent / "homes"  # databases as the releases of these revisions wrote them
EARLIER = sorted(path.stem.removeprefix("revision_") for path in HOMES.glob("revision_*.sql"))
EARLIER = [revision for revision in EARLIER if revision < HEAD]
JOB, KEY = "job-0123456789ab", "key-6d1424c7c600"


@pytest.fixture(params=EARLIER)
def revision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path, revision: str) -> Path:
    """As that revision left it: its database in WAL mode, with rows in every table that it had."""
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


def migrate(home: Path) -> None:
    with Database(home) as database:
        database.open()


def test_there_is_a_home_of_every_earlier_revision() -> None:
    known = [path.name[1:5] for path in (Path(migrations.__file__).parent / "versions").glob("r[0-9]*.py")]
    assert sorted(each for each in known if each < HEAD) == EARLIER


def test_models_are_there_after_the_migration(home: Path, revision: str) -> None:
    with open_registry(home) as registry:
        assert registry.resolve("tiny").label == "tiny:1"
        assert registry.resolve("tiny").manifest.licence == "MIT"
        attached = [(each.name, each.version) for each in registry.model("tiny").adapters]
        assert attached == ([("support", "tuned:1")] if revision >= "0003" else [])
        registry.set_alias("tiny", "mine", 1)
        assert registry.resolve("tiny:mine").number == 1


def test_jobs_files_and_evaluations_are_there_after_the_migration(home: Path, revision: str) -> None:
    with Database(home) as database:
        jobs, files, kept = JobStore(database), FileStore(database), EvaluationStore(database)
        if revision < "0002":
            assert (jobs.find(), files.find(), kept.of("tiny")) == ([], [], [])
            return
        owner = KEY if revision >= "0003" else None
        (job,) = jobs.find()
        assert (job.id, job.owner) == (JOB, owner)
        assert [event.type for event in jobs.events(job.id)] == ["status"]
        (file,) = files.find()
        assert (file.filename, file.owner) == ("train.jsonl", owner)
        assert [dict(each.metrics) for each in kept.of("tiny:1")] == [{"f1": 0.5}]


def test_keys_are_there_after_the_migration(home: Path, revision: str) -> None:
    with Database(home) as database:
        keys = KeyStore(database)
        found = [(key.name, key.revoked_at is None) for key in keys.all_keys()]
        assert found == ([("app", True), ("old", False)] if revision >= "0003" else [])
        assert keys.create("new", ["read"]).key in keys.all_keys()


def test_what_was_before_there_were_keys_nobody_owns_but_an_admin_sees(home: Path, revision: str) -> None:
    with Database(home) as database:
        files = FileStore(database)
        for file in files.find():
            assert files.find(owner="key-1") == []
            assert files.get(file.id, owner=None) == file


def test_the_database_as_it_was_stays_beside(home: Path) -> None:
    before = dump(home / "registry.db")
    migrate(home)
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
    migrate(home)
    writer.close()
    assert any("'late'" in line for line in dump(backup_path(home / "registry.db", HEAD)))


def test_a_home_of_today_is_not_copied(home: Path) -> None:
    migrate(home)
    copy = backup_path(home / "registry.db", HEAD)
    copy.unlink()
    migrate(home)
    assert not copy.exists()


def test_a_new_home_has_the_same_tables_and_no_copy(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    new = tmp_path_factory.mktemp("new")
    for each in (home, new):
        migrate(each)
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
        migrate(home)
    assert dump(home / "registry.db") == before
    assert not [path for path in home.glob("*.new") if path.is_file()], "no half copy stays"


def test_a_database_from_the_future_is_neither_copied_nor_touched(home: Path) -> None:
    connection = sqlite3.connect(home / "registry.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(DatabaseTooNew, match="Upgrade slmops"):
        migrate(home)
    assert not list(home.glob("*before*"))


def test_nothing_is_migrated_under_a_daemon_of_the_earlier_release(home: Path) -> None:
    before = dump(home / "registry.db")
    (home / "locks").mkdir()
    with FileLock(home / DAEMON_LOCK), pytest.raises(RegistryBusy, match="Stop that daemon"):
        migrate(home)
    assert dump(home / "registry.db") == before
    assert not list(home.glob("*before*"))
    migrate(home)
    assert list(home.glob("*before*")), "it is migrated once the daemon has ended"


def test_an_earlier_database_that_cannot_be_written_says_that_it_must_be_migrated(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(NotWritable, match=r"An earlier slmops .* Writing to the registry is not possible") as caught:
        migrate(home)
    assert str(caught.value) == caught.value.message
