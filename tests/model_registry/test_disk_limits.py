"""Quotas before the work, reservations, and collections, on real homes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from filelock import FileLock

from model_registry.artifacts import StagedVariant
from model_registry.database import Database
from model_registry.disk_space import reservations
from model_registry.disk_space.candidates import Candidate, Circumstances, RemovalStage
from model_registry.disk_space.kinds import StorageKind
from model_registry.disk_space.limits import NO_LIMITS, DiskLimits
from model_registry.disk_space.reservations import Need, Reservations
from model_registry.disk_space.upload_keeper import UploadKeeper
from model_registry.errors import OutOfDisk, RegistryBusy
from model_registry.pull import pull
from model_registry.records import Manifest, ModelVersion, Precision
from model_registry.registry import Registry
from model_registry.staging import hold
from model_registry.uploads import FileNotKnown, FileStore
from tests.doubles.tiny_gguf import Tiny, write_gguf

MB = 1_000_000


class Jobs:
    """What unfinished work needs, as the tests set it."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def needed(self) -> frozenset[str]:
        return frozenset(self.names)

    def candidates(self, at: Circumstances) -> list[Candidate]:
        return []

    def remove(self, candidate: Candidate, at: Circumstances) -> int | None:
        return None


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def opened(home: Path, jobs: Jobs) -> Iterator[Callable[[DiskLimits], Registry]]:
    """Registries of one home with limits, as the daemon has them."""
    database = Database(home)

    def make(limits: DiskLimits = NO_LIMITS) -> Registry:
        database.open()
        return Registry(database, limits, (UploadKeeper(home, FileStore(database)), jobs))

    yield make
    database.close()


def publish(registry: Registry, content: bytes, name: str = "tiny", **manifest: object) -> ModelVersion:
    with registry.staging() as staging:
        (staging / "model").mkdir()
        (staging / "model" / "model.onnx").write_bytes(content)
        values = {"source": "file:///x", "importer": "test", "architecture": "llama", "context_length": 8, **manifest}
        return registry.publish(name, Manifest(**values), [StagedVariant(Precision.INT8, "cpu", staging / "model")])  # type: ignore[arg-type]


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


Open = Callable[..., Registry]


class TestQuotas:
    def test_a_version_beyond_the_quota_is_refused_with_the_arithmetic(self, opened: Open) -> None:
        registry = opened(DiskLimits(kinds={StorageKind.VERSIONS: 3 * MB}))
        publish(registry, os.urandom(2 * MB))
        with pytest.raises(OutOfDisk, match=r"needs 2\.0 MB, and disk\.versions_max_bytes allows 3\.0 MB, of which 2\.0 MB") as no:
            publish(registry, os.urandom(2 * MB))
        assert no.value.needed_bytes == 2 * MB
        assert len(registry.model("tiny").versions) == 1
        assert list((registry.home / "staging").iterdir()) == []

    def test_what_was_planned_is_not_refused_at_its_end(self, opened: Open) -> None:
        registry = opened(DiskLimits(max_bytes=20 * MB))
        with registry.disk.reserving([Need(StorageKind.JOBS, 1 * MB)], "a job"):
            publish(registry, os.urandom(25 * MB))
        with pytest.raises(OutOfDisk):
            publish(registry, b"small")

    def test_the_file_system_keeps_its_floor(self, opened: Open) -> None:
        with pytest.raises(OutOfDisk, match=r"disk\.min_free_bytes"):
            opened(DiskLimits(min_free_bytes=1 << 60)).disk.require([Need(StorageKind.JOBS, 1)], "a job")

    def test_two_at_a_time_do_not_both_get_the_same_room(self, opened: Open) -> None:
        limits = DiskLimits(kinds={StorageKind.JOBS: 10 * MB})
        first, second = opened(limits), opened(limits)
        need = [Need(StorageKind.JOBS, 6 * MB)]
        refused = pytest.raises(OutOfDisk, match=r"6\.0 MB are reserved")
        with first.disk.reserving(need, "one"), refused, second.disk.reserving(need, "two"):
            pytest.fail("there is no room for both")
        with second.disk.reserving(need, "two"):
            pass
        assert not any(path.suffix == ".json" for path in (first.home / "locks" / "space").iterdir())

    def test_who_waits_too_long_for_another_that_makes_room_is_busy(self, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reservations, "DECIDING_S", 0)
        registry = opened(DiskLimits(max_bytes=10 * MB))
        with Reservations(registry.home).deciding(), pytest.raises(RegistryBusy):
            registry.disk.require([Need(StorageKind.JOBS, 1)], "a job")

    def test_what_is_written_is_reserved_no_more(self, opened: Open) -> None:
        registry = opened()
        all_of_home = Reservations(registry.home)
        reservation = all_of_home.add([Need(StorageKind.DOWNLOADS, 5 * MB, "downloads/a")])
        folder = registry.home / "downloads" / "a"
        folder.mkdir(parents=True)
        (folder / "x.part").write_bytes(bytes(3 * MB))
        assert all_of_home.remaining()[StorageKind.DOWNLOADS] == 2 * MB
        reservation.release()
        assert all_of_home.remaining()[StorageKind.DOWNLOADS] == 0

    def test_the_reservation_of_a_process_that_died_counts_no_more(self, opened: Open) -> None:
        all_of_home = Reservations(opened().home)
        reservation = all_of_home.add([Need(StorageKind.JOBS, 5 * MB)])
        reservation.lock.release()  # as the system does it
        assert all_of_home.remaining()[StorageKind.JOBS] == 0
        assert not reservation.path.exists()

    @pytest.mark.model
    def test_a_pull_is_refused_before_anything_is_made(self, opened: Open, tmp_path: Path) -> None:
        source = write_gguf(tmp_path / "tiny.gguf", Tiny(context=512))
        registry = opened(DiskLimits(max_bytes=1 << 10))
        with pytest.raises(OutOfDisk, match="pulling tiny"):
            pull(registry, str(source))
        assert (registry.models(), list((registry.home / "staging").iterdir())) == ((), [])
        assert pull(opened(DiskLimits(max_bytes=1 << 30)), str(source)).label == "tiny:1"

    def test_an_upload_is_refused_before_it_is_copied(self, opened: Open) -> None:
        registry = opened(DiskLimits(kinds={StorageKind.UPLOADS: 1 * MB}))

        def room(num_bytes: int, folder: str) -> AbstractContextManager[None]:
            return registry.disk.reserving([Need(StorageKind.UPLOADS, num_bytes, folder)], "the upload")

        files = FileStore(registry.database, room=room)
        with pytest.raises(OutOfDisk):
            files.add(BytesIO(bytes(2 * MB)), "large.jsonl", "fine-tune")
        assert not (registry.home / "files").exists()
        assert files.add(BytesIO(b"abc"), "small.jsonl", "fine-tune").path.read_bytes() == b"abc"


class TestCollection:
    def test_room_is_made_before_anything_is_refused(self, opened: Open) -> None:
        registry = opened(DiskLimits(max_bytes=10 * MB))
        left = registry.home / "downloads" / "abc"
        left.mkdir(parents=True)
        (left / "x.part").write_bytes(bytes(8 * MB))
        age(left, 7200)
        registry.disk.require([Need(StorageKind.JOBS, 5 * MB)], "a job")
        assert not left.exists()
        assert registry.disk.collected_bytes()[StorageKind.DOWNLOADS] == 8 * MB

    def test_a_download_in_progress_and_a_fresh_one_stay(self, opened: Open) -> None:
        registry = opened(DiskLimits(max_bytes=1))
        pulled, fresh = (registry.home / "downloads" / name for name in ("abc", "def"))
        for folder in (pulled, fresh):
            folder.mkdir(parents=True)
            (folder / "x.part").write_bytes(b"x")
        age(pulled, 10**7)
        with FileLock(registry.home / "locks" / "pull-abc.lock"):
            assert registry.collect_garbage() == 0
        assert pulled.exists()
        assert fresh.exists()
        registry.collect_garbage()
        assert not pulled.exists()

    def test_what_a_process_works_with_stays(self, opened: Open) -> None:
        registry = opened(DiskLimits(max_bytes=1))
        held, idle = (registry.home / "caches" / name for name in ("held", "idle"))
        for folder in (held, idle):
            folder.mkdir(parents=True)
            (folder / "x").write_bytes(b"x")
        assert hold(held)
        registry.collect_garbage()
        assert (held.exists(), idle.exists()) == (True, False)
        assert not hold(idle)

    def test_a_dry_run_removes_nothing_and_says_what_and_why(self, opened: Open) -> None:
        registry = opened()
        dead = registry.home / "staging" / "dead"
        dead.mkdir(parents=True)
        (dead / "x").write_bytes(b"xx")
        with registry.staging() as alive:
            report = registry.disk.report()
            found = {each.name: each for each in report.candidates}
            assert [each.name for each in report.planned] == ["staging/dead"]
            assert found[f"staging/{alive.name}"].in_use
            assert registry.disk.collect().freed_bytes == 2
            assert alive.is_dir()
        assert registry.disk.report().planned == ()

    def test_a_checkpoint_can_be_made_again_unless_offline_or_needed(self, opened: Open, jobs: Jobs) -> None:
        limits = DiskLimits(kinds={StorageKind.CHECKPOINTS: 0})
        registry = opened(limits)
        version = publish(registry, b"weights")
        folder = registry.home / "checkpoints" / version.digest[:32]
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes(5000))
        assert opened().disk.collect().removed == ()
        assert opened(replace(limits, offline=True)).disk.collect().removed == ()
        jobs.names = {"tiny"}
        assert registry.disk.collect().removed == ()
        jobs.names = set()
        assert [each.stage for each in registry.disk.collect().removed] == [RemovalStage.CACHE]


class TestVersions:
    def test_all_stay_unless_the_operator_says_otherwise(self, opened: Open) -> None:
        registry = opened(DiskLimits(max_bytes=1))
        with pytest.raises(OutOfDisk):
            publish(registry, b"a")
        unlimited = opened()
        for number in range(4):
            publish(unlimited, b"%d" % number)
        registry.disk.collect()
        assert len(registry.model("tiny").versions) == 4

    def test_the_newest_and_all_in_use_stay(self, opened: Open, jobs: Jobs) -> None:
        registry = opened()
        for number in range(1, 9):
            publish(registry, b"%d" % number)
        registry.set_alias("tiny", "old", 1)
        hold(registry.resolve("tiny:2").variants[0].folder)
        jobs.names = {"tiny:3"}
        _tuned_on(registry, "tiny:4")
        limited = opened(DiskLimits(keep_versions=1))
        assert {each.name for each in limited.disk.report().planned} == {"tiny:5", "tiny:6"}
        limited.collect_garbage()
        assert [version.number for version in limited.model("tiny").versions] == [1, 2, 3, 4, 7, 8], "7 is `previous`"
        assert limited.verify("tiny") == ()

    def test_an_alias_that_comes_in_between_wins(self, opened: Open) -> None:
        registry = opened()
        for number in range(1, 5):
            publish(registry, b"%d" % number)
        limited = opened(DiskLimits(keep_versions=1))
        planned = [each for each in limited.disk.report().planned if each.name == "tiny:1"]
        registry.set_alias("tiny", "golden", 1)
        at = Circumstances(limited.disk.limits, frozenset, time.time())
        keeper = limited.disk.keepers[0]
        assert keeper.remove(planned[0], at) is None
        assert registry.resolve("tiny:golden").number == 1


class TestUploads:
    def test_what_expired_goes_unless_a_job_reads_it(self, opened: Open, jobs: Jobs) -> None:
        registry = opened()
        files = FileStore(registry.database)
        expired, needed, kept = (
            files.add(BytesIO(b"abc"), "a", "fine-tune", expires_after_s=seconds) for seconds in (-1, -1, None)
        )
        jobs.names = {needed.id}
        with pytest.raises(FileNotKnown):
            files.get(needed.id)
        assert files.content_of(needed.id).read_bytes() == b"abc"
        assert [each.name for each in registry.disk.collect().removed] == [expired.id]
        assert (expired.path.exists(), needed.path.exists(), kept.path.exists()) == (False, True, True)
        jobs.names = set()
        registry.collect_garbage()
        assert not needed.path.parent.exists()

    def test_old_ones_go_where_the_operator_says_so(self, opened: Open) -> None:
        registry = opened(DiskLimits(keep_uploads_days=1e-9))
        stored = FileStore(registry.database).add(BytesIO(b"abc"), "a", "fine-tune")
        assert opened().disk.collect().removed == ()
        registry.collect_garbage()
        assert not stored.path.exists()

    def test_a_folder_that_a_cut_upload_left_goes_after_a_day(self, opened: Open) -> None:
        registry = opened()
        left = registry.home / "files" / "file-abc"
        left.mkdir(parents=True)
        assert registry.disk.collect().removed == ()
        age(left, 100_000)
        registry.collect_garbage()
        assert not left.exists()


def _tuned_on(registry: Registry, base: str) -> None:
    with registry.staging() as staging:
        for name in ("model", "adapter"):
            (staging / name).mkdir()
            (staging / name / "x").write_text(name)
        values = {"source": "job", "importer": "test", "architecture": "llama", "context_length": 8, "parent": base}
        variants = [StagedVariant(Precision.INT8, "cpu", staging / "model"), StagedVariant.adapter(staging / "adapter")]
        registry.publish("tuned", Manifest(**values), variants)  # type: ignore[arg-type]
