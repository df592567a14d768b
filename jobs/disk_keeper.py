"""Folders of jobs as candidates for removal: what ended jobs have left for attempts that will not come.

Results and logs stay until their job is deleted. What unfinished jobs refer to, others must keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.job import WORK, Job
from jobs.store import JobStore
from jobs.task import PLANNED
from model_registry.disk import entries, remove_tree, tree_bytes
from model_registry.disk_space.candidates import Candidate, Circumstances, Names, RemovalStage
from model_registry.disk_space.kinds import StorageKind
from model_registry.staging import modified_at

CHECKPOINTS = "checkpoints"  # in the folder that a task writes in: what it goes on from when it is started again
_FOR_ATTEMPTS = (CHECKPOINTS, "scratch", PLANNED)
_TRIALS = "trials"  # of a search: each has such a folder of its own
_LEFT_AFTER_S = 24 * 3600.0
_PREFIX = "job-"


class JobKeeper:
    """Of the jobs of one home."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._folder = store.home / "jobs"

    def needed(self) -> Names:
        """Every text of unfinished jobs' params: more than what they refer to, never less."""
        return frozenset(text for job in self._store.unfinished() for text in _texts(job.params))

    def candidates(self, at: Circumstances) -> Iterable[Candidate]:
        for folder in entries(self._folder):
            if folder.name.startswith(_PREFIX):
                yield from self._of(folder, self._store.job(folder.name), at)

    def remove(self, candidate: Candidate, at: Circumstances) -> int | None:
        """An ended job never runs again, so that nothing can come into use."""
        if candidate.kind is not StorageKind.JOBS:
            return None
        folder, job = self._folder / candidate.name, self._store.job(candidate.name)
        if job is not None and not job.status.is_final:
            return None
        gone = [folder] if job is None else list(_for_attempts(folder))
        freed = sum(map(tree_bytes, gone))
        for path in gone:
            remove_tree(path)
        return freed

    def _of(self, folder: Path, job: Job | None, at: Circumstances) -> Iterator[Candidate]:
        if job is None:
            if (changed_s := modified_at(folder)) < at.now_s - _LEFT_AFTER_S:
                yield _candidate(RemovalStage.ORPHAN, folder, tree_bytes(folder), changed_s, "its job was deleted", is_due=True)
            return
        size = sum(map(tree_bytes, _for_attempts(folder)))
        if not size:
            return
        if job.ended_at is None:
            started_s = job.created_at.timestamp()
            in_use = f"its job is {job.status}"
            yield _candidate(RemovalStage.JOB, folder, size, started_s, "checkpoints", is_due=False, in_use=in_use)
            return
        ended_s, most_s = job.ended_at.timestamp(), at.limits.keep_jobs_s
        is_due = most_s is not None and ended_s < at.now_s - most_s
        yield _candidate(
            RemovalStage.JOB, folder, size, ended_s, f"checkpoints of a job that has ended ({job.status})", is_due=is_due
        )


def _for_attempts(folder: Path) -> Iterator[Path]:
    work = folder / WORK
    for place in (work, *entries(work / _TRIALS)):
        yield from (place / name for name in _FOR_ATTEMPTS if (place / name).is_dir())


def _candidate(
    stage: RemovalStage, folder: Path, size: int, last_used_s: float, why: str, *, is_due: bool, in_use: str | None = None
) -> Candidate:
    return Candidate(StorageKind.JOBS, stage, folder.name, size, last_used_s, why, is_due, in_use)


def _texts(params: Any) -> Iterator[str]:
    if isinstance(params, str):
        yield params
    elif isinstance(params, Mapping):
        for value in params.values():
            yield from _texts(value)
    elif isinstance(params, list | tuple):
        for value in params:
            yield from _texts(value)
