"""Metrics of jobs, from job values alone: what is counted when they change, and when one is seen to advance."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from jobs.job import Failure, Job, JobStatus, Progress
from jobs.task import JobKind
from server.metrics.job_metrics import JobMetrics

pytestmark = pytest.mark.unit

START = datetime(2026, 1, 1, tzinfo=UTC)
QUEUED = Job("job_1", JobKind.FINETUNE, {}, JobStatus.QUEUED, START)
RUNNING = replace(QUEUED, status=JobStatus.RUNNING, attempt=1, started_at=START)
LABELS = {"job_id": "job_1", "kind": "finetune"}


class Bench:
    """A queue of one job, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.registry = CollectorRegistry()
        self._metrics = JobMetrics(self.registry, lambda: self.now)
        self._metrics.watch(self)
        self._job = QUEUED

    def counts(self) -> dict[tuple[str, str], int]:
        return {(str(self._job.kind), str(self._job.status)): 1}

    def active(self) -> tuple[Job, ...]:
        return () if self._job.status.is_final else (self._job,)

    def report(self, job: Job, at: float) -> None:
        self.now, self._job = at, job
        self._metrics.changed(job)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels or LABELS)

    @property
    def advanced_at(self) -> float | None:
        return self.value("slmops_job_progress_timestamp_seconds")


def at_step(step: int, stage: str = "train") -> Job:
    return replace(RUNNING, progress=Progress(stage, step, 10))


def test_only_a_step_a_stage_or_a_start_is_an_advance() -> None:
    bench = Bench()
    bench.report(QUEUED, 1000)
    assert bench.advanced_at is None
    for job, at, expected in (
        (RUNNING, 1010, 1010),
        (RUNNING, 1020, 1010),
        (at_step(0), 1030, 1030),
        (at_step(1), 1040, 1040),
        (replace(at_step(1), progress=Progress("train", 1, 10, metrics={"loss": 1.0})), 1050, 1040),
        (at_step(0, "publish"), 1060, 1060),
        (replace(at_step(0, "publish"), attempt=2), 1070, 1070),
    ):
        bench.report(job, at)
        assert bench.advanced_at == expected


def test_a_job_that_does_not_run_cannot_be_stuck() -> None:
    bench = Bench()
    bench.report(at_step(1), 1000)
    bench.report(replace(at_step(1), status=JobStatus.PAUSED), 1010)
    assert bench.advanced_at is None
    bench.report(at_step(1), 5000)
    assert bench.advanced_at == 5000


def test_starts_of_every_kind_stand_at_zero_before_the_first_job() -> None:
    bench = Bench()
    assert {bench.value("slmops_job_starts_total", kind=str(kind)) for kind in JobKind} == {0.0}
    bench.report(RUNNING, 1000)
    assert bench.value("slmops_job_starts_total", kind="finetune") == 1


def test_an_end_is_counted_once_with_its_cause() -> None:
    bench = Bench()
    bench.report(RUNNING, 1000)
    failed = replace(RUNNING, status=JobStatus.FAILED, failure=Failure("out_of_memory", "x"), ended_at=START + timedelta(seconds=9))
    for _ in range(2):
        bench.report(failed, 1010)
    assert bench.value("slmops_job_failures_total", kind="finetune", code="out_of_memory") == 1
    assert bench.value("slmops_job_duration_seconds_sum", kind="finetune", status="failed") == 9
    assert bench.value("slmops_jobs", kind="finetune", status="failed") == 1
    assert bench.advanced_at is None
