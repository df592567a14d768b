"""What ended jobs leave on the disk, and what unfinished ones keep."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.disk_keeper import JobKeeper
from jobs.job import Job, JobStatus
from jobs.store import JobStore
from jobs.task import JobKind
from model_registry.database import Database
from model_registry.disk_space.candidates import Circumstances
from model_registry.disk_space.limits import DiskLimits
from model_registry.registry import Registry

NOW = datetime.now(UTC)
LEFT = ("work/checkpoints/checkpoint-5", "work/scratch/x", "work/trials/3/checkpoints/checkpoint-1")
RESULTS = ("log.txt", "work/report.md", "work/olive/adapter/weights", "work/trials/3/report.md")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    with Database(tmp_path / "home") as database:
        yield JobStore(database)


def make(store: JobStore, id_: str, status: JobStatus, **params: object) -> Path:
    ended = NOW - timedelta(days=10) if status.is_final else None
    store.insert([Job(id_, JobKind.FINETUNE, params, status, NOW - timedelta(days=11), ended_at=ended)])
    folder = store.home / "jobs" / id_
    for name in (*LEFT, *RESULTS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(100))
    return folder


def registry(store: JobStore, limits: DiskLimits) -> Registry:
    return Registry(store._database, limits, [JobKeeper(store)])


@pytest.mark.parametrize("status", JobStatus)
def test_only_what_attempts_of_ended_jobs_left_goes(store: JobStore, status: JobStatus) -> None:
    folder = make(store, "job-a", status)
    registry(store, DiskLimits(max_bytes=1)).collect_garbage()
    assert [name for name in LEFT if (folder / name).exists()] == ([] if status.is_final else list(LEFT))
    assert all((folder / name).exists() for name in RESULTS)


def test_with_room_it_stays_until_it_is_old(store: JobStore) -> None:
    folder = make(store, "job-a", JobStatus.FAILED)
    for limits in (DiskLimits(), DiskLimits(keep_jobs_days=11)):
        assert registry(store, limits).collect_garbage() == 0
    assert registry(store, DiskLimits(keep_jobs_days=9)).collect_garbage() == 300
    assert (folder / "log.txt").exists()


def test_a_folder_whose_job_was_deleted_goes_after_a_day(store: JobStore) -> None:
    folder = make(store, "job-a", JobStatus.FAILED)
    store.delete("job-a")
    collector = registry(store, DiskLimits())
    assert collector.collect_garbage() == 0
    then = time.time() - 100_000
    os.utime(folder, (then, then))
    assert collector.collect_garbage() == 700
    assert not folder.exists()


def test_what_an_unfinished_job_names_is_needed(store: JobStore) -> None:
    make(store, "job-a", JobStatus.QUEUED, model="tiny:3", data=["file-a"], nested={"judge": "other"})
    make(store, "job-b", JobStatus.SUCCEEDED, model="gone:1")
    assert JobKeeper(store).needed() == {"tiny:3", "file-a", "other"}


def test_a_job_that_goes_on_meanwhile_loses_nothing(store: JobStore) -> None:
    """A candidate of a moment ago is looked at again before it goes."""
    folder = make(store, "job-a", JobStatus.PAUSED)
    keeper = JobKeeper(store)
    at = Circumstances(DiskLimits(), frozenset, time.time())
    (candidate,) = keeper.candidates(at)
    assert candidate.in_use
    assert keeper.remove(replace(candidate, in_use=None), at) is None
    assert all((folder / name).exists() for name in LEFT)
