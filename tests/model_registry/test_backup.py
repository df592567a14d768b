"""Backups: whole, checked, made and put back beside a daemon; what a home has is never changed."""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from model_registry.artifacts import StagedVariant
from model_registry.backup import (
    BackupExists,
    CorruptBackup,
    Restored,
    RestoreOptions,
    back_up,
    back_up_to,
    read_contents,
    replaced_home,
    restore,
)
from model_registry.database import Database
from model_registry.disk import DAEMON_LOCK
from model_registry.disk_space.limits import DiskLimits
from model_registry.errors import DatabaseTooNew, ModelNotFound, OutOfDisk, RegistryBusy
from model_registry.evaluations import Evaluation, EvaluationStore
from model_registry.keys import KeyStore
from model_registry.progress import SilentProgress
from model_registry.records import Manifest, Precision
from model_registry.registry import Registry
from model_registry.schema import job_events, jobs
from model_registry.uploads import FileStore
from tests.effort import drawn
from tests.model_registry.conftest import Publish

AT = datetime(2026, 11, 1, 12, 0)


@pytest.fixture
def database(registry: Registry) -> Database:
    return registry.database


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "other") as other:
        yield other


def job(id_: str, *, ended: bool) -> dict[str, Any]:
    return {
        "id": id_,
        "kind": "quantize",
        "status": "succeeded" if ended else "running",
        "params": {},
        "needs": [],
        "metadata": {},
        "attempt": 1,
        "created_at": AT,
        "ended_at": AT if ended else None,
        "progress": {},
    }


def add_job(database: Database, id_: str, *, ended: bool = True) -> None:
    folder = database.home / "jobs" / id_ / "work"
    folder.mkdir(parents=True)
    (folder / "report.csv").write_text("step,loss\n")
    event = {"job_id": id_, "number": 1, "at": AT, "type": "status", "level": "info", "message": "queued", "data": {}}
    with database.writing() as connection:
        connection.execute(insert(jobs), [job(id_, ended=ended)])
        connection.execute(insert(job_events), [event])


def backup_of(database: Database, **options: Any) -> bytes:
    target = io.BytesIO()
    back_up(database, target, SilentProgress(), release="1.2.3", **options)
    return target.getvalue()


def put_back(database: Database, archive: bytes, *models: str, keys: bool | None = None) -> Restored:
    return restore(Registry(database), io.BytesIO(archive), RestoreOptions(models, keys), SilentProgress())


def versions_in(database: Database) -> list[Any]:
    """Everything about versions but where they lie."""
    return [
        (version.label, version.digest, version.created_at, version.manifest, [variant.artifacts for variant in version.variants])
        for model in Registry(database).models()
        for version in model.versions
    ]


def aliases_in(database: Database) -> set[tuple[str, str, int]]:
    return {(alias.model, alias.name, alias.number) for model in Registry(database).models() for alias in model.aliases}


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def full(database: Database, publish: Publish) -> Database:
    """Two models, aliases, an attached adapter, evaluations, a key, an upload, a job that has ended and one that runs."""
    registry = Registry(database)
    publish("tiny", "one", metrics={"perplexity": 2.5})
    publish("tiny", "two")
    publish("other", "three")
    registry.set_alias("tiny", "stable", 1)
    with registry.staging() as staging:
        (staging / "adapter.safetensors").write_text("lora")
        manifest = Manifest("job:1", "finetune", "llama", 8, parent="tiny:2")
        registry.publish("tuned", manifest, [StagedVariant.adapter(staging)])
    registry.attach("tiny", "support", "tuned")
    EvaluationStore(database).add(Evaluation("tiny:1", "evaluate", {"f1": 0.5}), Evaluation("tiny:2", "evaluate", {"f1": 0.6}))
    KeyStore(database).create("app", ["inference"])
    FileStore(database).add(io.BytesIO(b"{}\n"), "train.jsonl", "fine-tune")
    add_job(database, "job-ended")
    add_job(database, "job-running", ended=False)
    return database


def test_a_home_comes_back_whole(full: Database, empty: Database) -> None:
    restored = put_back(empty, backup_of(full))
    assert versions_in(empty) == versions_in(full)
    assert aliases_in(empty) == aliases_in(full)
    registry = Registry(empty)
    assert [registry.verify(model.name) for model in registry.models()] == [(), (), ()]
    assert registry.model("tiny").adapters == Registry(full).model("tiny").adapters
    assert EvaluationStore(empty).of("tiny") == EvaluationStore(full).of("tiny")
    assert KeyStore(empty).all_keys() == KeyStore(full).all_keys()
    [upload] = FileStore(empty).find()
    assert upload.path.read_bytes() == b"{}\n"
    assert files_under(empty.home / "jobs") == {"job-ended/work/report.csv": b"step,loss\n"}
    with empty.reading() as reader:
        assert list(reader.execute(select(job_events.c.job_id)).scalars()) == ["job-ended"]
    assert (restored.num_evaluations, restored.num_uploads, restored.num_jobs, restored.num_keys) == (2, 1, 1, 1)
    assert any("job-running" in sentence for sentence in restored.skipped)


def test_a_second_restoration_finds_nothing_missing(full: Database) -> None:
    archive = backup_of(full)
    before = versions_in(full), aliases_in(full)
    restored = put_back(full, archive)
    assert (restored.numbers, restored.num_evaluations, restored.num_uploads, restored.num_jobs, restored.num_keys) == (
        {},
        *(0, 0, 0, 0),
    )
    assert (versions_in(full), aliases_in(full)) == before


def test_what_changed_since_stays(full: Database) -> None:
    archive = backup_of(full)
    Registry(full).set_alias("tiny", "stable", 2)
    KeyStore(full).revoke("app")
    put_back(full, archive, keys=True)
    assert ("tiny", "stable", 2) in aliases_in(full)
    assert [key.revoked_at is None for key in KeyStore(full).all_keys()] == [False]


def test_a_removed_version_comes_back_under_its_number(full: Database) -> None:
    archive = backup_of(full)
    registry = Registry(full)
    registry.remove("tiny:1", force=True)
    restored = put_back(full, archive, "tiny:1")
    assert restored.numbers == {"tiny:1": "tiny:1"}
    assert registry.verify("tiny:1") == ()
    assert ("tiny", "stable", 1) in aliases_in(full)  # went with the version


def test_a_number_that_another_version_has_is_not_taken(full: Database, empty: Database) -> None:
    archive = backup_of(full)
    registry = Registry(empty)
    with registry.staging() as staging:
        (staging / "weights").write_text("of this home")
        mine = registry.publish("tiny", Manifest("x", "y", "llama", 8), [StagedVariant(Precision.INT8, "cpu", staging)])
    restored = put_back(empty, archive, "tiny")
    assert restored.numbers == {"tiny:1": "tiny:3", "tiny:2": "tiny:2"}
    assert registry.resolve("tiny").digest == mine.digest
    assert [each.metrics for each in EvaluationStore(empty).of("tiny:3")] == [{"f1": 0.5}]
    assert ("tiny", "stable", 3) in aliases_in(empty)


def test_numbers_that_were_used_are_not_used_again(full: Database, empty: Database, publish: Publish) -> None:
    Registry(full).remove("tiny:2", force=True)
    put_back(empty, backup_of(full), "tiny")
    registry = Registry(empty)
    with registry.staging() as staging:
        (staging / "weights").write_text("new")
        new = registry.publish("tiny", Manifest("x", "y", "llama", 8), [StagedVariant(Precision.INT8, "cpu", staging)])
    assert new.number == 2  # the saved model had given 2 away, but this home never had it


def test_some_models_alone(full: Database, empty: Database) -> None:
    restored = put_back(empty, backup_of(full), "other", "tiny:stable")
    assert restored.numbers == {"other:1": "other:1", "tiny:1": "tiny:1"}
    assert aliases_in(empty) == {
        ("other", "live", 1),
        ("tiny", "stable", 1),
        ("tiny", "previous", 1),
        ("tiny", "live", 1),
    }
    assert (restored.num_keys, restored.num_uploads, restored.num_jobs) == (0, 0, 0)


def test_a_model_that_the_backup_has_not(full: Database, empty: Database) -> None:
    with pytest.raises(ModelNotFound):
        put_back(empty, backup_of(full), "nothing")
    assert Registry(empty).models() == ()


def test_keys_come_back_only_where_there_are_none_or_on_request(full: Database, empty: Database) -> None:
    archive = backup_of(full)
    KeyStore(empty).create("mine", ["admin"])
    assert put_back(empty, archive).num_keys == 0
    assert put_back(empty, archive, keys=True).num_keys == 1


def test_without_jobs(full: Database, empty: Database) -> None:
    restored = put_back(empty, backup_of(full, with_jobs=False))
    assert restored.num_jobs == 0
    assert not (empty.home / "jobs" / "job-ended").exists()


class Pipe(io.RawIOBase):
    """Is read once, from its start. on_write: called with each piece that is written."""

    def __init__(self, content: bytes = b"", on_write: Callable[[], None] = lambda: None) -> None:
        self.content = bytearray(content)
        self._on_write = on_write

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self._on_write()
        self.content += bytes(piece)
        return len(piece)

    def read(self, size: int = -1) -> bytes:
        piece = bytes(self.content[:size])
        del self.content[:size]
        return piece


def test_through_pipes_while_the_models_are_removed(full: Database, empty: Database) -> None:
    before = versions_in(full)

    def remove() -> None:
        for model in Registry(full).models():
            Registry(full).remove(model.name)
        Registry(full).collect_garbage()

    pipe = Pipe(on_write=remove)
    back_up(full, pipe, SilentProgress(), release="1")
    assert versions_in(full) == []
    restore(Registry(empty), pipe, RestoreOptions(), SilentProgress())
    assert versions_in(empty) == before


def test_a_damaged_file_is_named_and_kept_out(full: Database, empty: Database) -> None:
    version = Registry(full).resolve("other")
    blob = full.home / "blobs/sha256" / version.variants[0].artifacts[0].sha256[:2] / version.variants[0].artifacts[0].sha256
    blob.chmod(0o600)
    blob.write_bytes(b"rotten")
    target = io.BytesIO()
    made = back_up(full, target, SilentProgress(), release="1")
    assert made.damaged == ("other:1",)
    with pytest.raises(CorruptBackup):
        put_back(empty, target.getvalue())


def test_a_missing_file_costs_its_version_alone(full: Database, empty: Database) -> None:
    version = Registry(full).resolve("other")
    artifact = next(each for each in version.variants[0].artifacts if each.path == "model.onnx")
    (full.home / "blobs/sha256" / artifact.sha256[:2] / artifact.sha256).unlink()
    (version.variants[0].folder / artifact.path).unlink()
    restored = put_back(empty, backup_of(full))
    assert sorted(restored.numbers) == ["tiny:1", "tiny:2", "tuned:1"]
    assert any("other:1" in sentence for sentence in restored.skipped)


def test_the_limits_of_the_home_are_kept(full: Database, empty: Database) -> None:
    limited = Registry(empty, DiskLimits(max_bytes=10))
    with pytest.raises(OutOfDisk):
        restore(limited, io.BytesIO(backup_of(full)), RestoreOptions(), SilentProgress())
    assert limited.models() == ()
    assert files_under(empty.home / "blobs") == {}


# ---- what is read is not trusted ----


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    with Database(tmp_path_factory.mktemp("made") / "home") as database:
        registry = Registry(database)
        with registry.staging() as staging:
            (staging / "weights").write_text("some")
            registry.publish("tiny", Manifest("x", "y", "llama", 8), [StagedVariant(Precision.INT8, "cpu", staging)])
        return backup_of(database)


@settings(drawn(60), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_damage_leaves_the_home_as_it_was(archive: bytes, empty: Database, data: st.DataObject) -> None:
    last = archive.rstrip(b"\0")
    place = data.draw(st.integers(0, len(last) - 1))
    damaged = last[:place] if data.draw(st.booleans()) else last[:place] + bytes([last[place] ^ 0x55]) + last[place + 1 :]
    try:
        restored = put_back(empty, damaged)
    except (CorruptBackup, DatabaseTooNew):
        assert Registry(empty).models() == ()
    else:  # the damage was in what means nothing, e.g. the time of a file
        assert list(restored.numbers) == ["tiny:1"] or restored.present == ("tiny:1",)
        Registry(empty).remove("tiny")
    assert list((empty.home / "staging").iterdir()) == []


def changed(
    archive: bytes, name: str, content: bytes | None = None, *, rename: str | None = None, kind: bytes | None = None
) -> bytes:
    """The archive with another content, name or kind of the member `name`; its list of files says the same."""
    target = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=target, mode="w") as new:
        for member in old:
            reader = old.extractfile(member)
            data = reader.read() if reader else b""
            if member.name == "backup.json" and rename:
                data = data.replace(name.encode(), rename.encode())
            if member.name == name:
                data, member.name, member.type = content or data, rename or name, kind or member.type
                member.linkname = "/etc/passwd" if kind else ""
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return target.getvalue()


@pytest.mark.parametrize(
    "name", ["../escaped", "/etc/escaped", "slmops.toml", "models/tiny/1/x", "blobs/sha256/../../x", "locks/x"]
)
def test_names_of_other_places_are_refused(archive: bytes, empty: Database, name: str) -> None:
    blob = next(entry.path for entry in read_contents(io.BytesIO(archive)).entries if entry.path.startswith("blobs"))
    with pytest.raises(CorruptBackup):
        put_back(empty, changed(archive, blob, rename=name))
    assert not list(empty.home.parent.glob("escaped"))


def test_links_are_refused(archive: bytes, empty: Database) -> None:
    with pytest.raises(CorruptBackup):
        put_back(empty, changed(archive, "registry.db", kind=tarfile.SYMTYPE))


@pytest.mark.parametrize("text", [b"", b"{", b'{"format": 2}', b"[]", b'{"format": 1}', b"[" * 100_000])
def test_lists_that_cannot_be_read_are_refused(archive: bytes, empty: Database, text: bytes) -> None:
    with pytest.raises(CorruptBackup):
        put_back(empty, changed(archive, "backup.json", text or b" "))


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 10_240, b"\x1f\x8b" + b"x" * 600])
def test_other_files_are_refused(empty: Database, content: bytes) -> None:
    with pytest.raises(CorruptBackup):
        put_back(empty, content)


# ---- releases ----


def rebuilt(home: Path) -> bytes:
    """A backup whose database is the one in `home`, of whatever revision."""
    from model_registry.backup.archive import write_archive
    from model_registry.backup.contents import Contents, Entry
    from model_registry.disk import sha256_of

    path = home / "registry.db"
    entry = Entry("registry.db", sha256_of(path), path.stat().st_size)
    target = io.BytesIO()
    write_archive(target, Contents("0", "?", datetime.now(UTC), {}, (entry,)), home, SilentProgress())
    return target.getvalue()


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004"])
def test_backups_of_earlier_releases_are_migrated(tmp_path: Path, empty: Database, revision: str) -> None:
    import sqlite3

    earlier = tmp_path / "earlier"
    earlier.mkdir()
    script = Path(__file__).parent / "homes" / f"revision_{revision}.sql"
    with sqlite3.connect(earlier / "registry.db") as connection:
        connection.executescript(script.read_text())
    connection.close()
    restored = put_back(empty, rebuilt(earlier))
    assert all("not whole" in sentence for sentence in restored.skipped)  # its files are not in the archive


def test_a_backup_of_a_later_release_is_refused(full: Database, empty: Database, tmp_path: Path) -> None:
    import sqlite3

    later = tmp_path / "later"
    later.mkdir()
    full.copied_to(later).close()
    with sqlite3.connect(later / "registry.db") as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    connection.close()
    with pytest.raises(DatabaseTooNew):
        put_back(empty, rebuilt(later))
    assert Registry(empty).models() == ()


# ---- files ----


def test_a_backup_file_is_whole_and_private_or_not_there(full: Database, tmp_path: Path) -> None:
    target = tmp_path / "home.tar"
    back_up_to(full, target, SilentProgress(), release="1")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pytest.raises(BackupExists):
        back_up_to(full, target, SilentProgress(), release="1")
    assert [path.name for path in tmp_path.glob("home.tar*")] == ["home.tar"]


def test_nothing_is_left_of_a_backup_that_fails(full: Database, tmp_path: Path) -> None:
    class Stopped(SilentProgress):
        def update(self, done: int, total: int | None) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up_to(full, tmp_path / "home.tar", Stopped(), release="1")
    assert not list(tmp_path.glob("home.tar*"))
    assert not [path for path in (full.home / "staging").iterdir() if path.is_dir()]


# ---- replacing ----


def test_a_replaced_home_is_kept_beside(full: Database, home: Path) -> None:
    full.close()
    (home / "slmops.toml").write_text("")
    with replaced_home(home) as kept, Database(home) as fresh:
        assert Registry(fresh).models() == ()
    assert kept is not None
    assert {path.name for path in kept.iterdir()} >= {"registry.db", "models", "blobs"}
    assert (home / "slmops.toml").exists()


def test_a_replacement_that_fails_changes_nothing(full: Database, home: Path) -> None:
    before = versions_in(full)
    full.close()

    def fail() -> None:
        with replaced_home(home), Database(home) as fresh:
            fresh.open()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert versions_in(full) == before
    assert not list(home.glob("backups/replaced-*"))


def test_a_home_in_use_is_not_replaced(full: Database, home: Path) -> None:
    with FileLock(home / DAEMON_LOCK), pytest.raises(RegistryBusy), replaced_home(home):
        pass
    assert len(Registry(full).models()) == 3


def test_an_empty_home_has_nothing_to_keep(tmp_path: Path) -> None:
    with replaced_home(tmp_path / "new") as kept:
        assert kept is None


def test_contents_read_what_they_write(archive: bytes) -> None:
    contents = read_contents(io.BytesIO(archive))
    assert type(contents).from_json(replace(contents).as_json()) == contents
    assert list(contents.models) == ["tiny:1"]
