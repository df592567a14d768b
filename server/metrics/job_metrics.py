"""Metrics of jobs: what is counted as they change, and what is read of those that have not ended at each scrape."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from jobs.job import Job, JobStatus
from jobs.task import JobKind
from server.metrics import slmops_metrics
from server.metrics.declaration import Family


class ObservedQueue(Protocol):
    """What a scrape needs of the job queue."""

    def counts(self) -> dict[tuple[str, str], int]: ...

    def active(self) -> tuple[Job, ...]: ...


class JobMetrics:
    """Counts the changes that are reported to `changed`; `watch` adds what is read from a queue. clock: of Unix times."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        self._registry = registry
        self._clock = clock
        self._open: dict[str, int] = {}  # attempts of the jobs that have not ended
        self._advances = Advances()
        self._starts = slmops_metrics.JOB_STARTS.counter(registry)
        self._failures = slmops_metrics.JOB_FAILURES.counter(registry)
        self._seconds = slmops_metrics.JOB_SECONDS.histogram(registry)
        for kind in JobKind:
            self._starts.labels(str(kind))  # at zero from the start, so that the first job is an increase

    def watch(self, queue: ObservedQueue) -> None:
        self._registry.register(JobCollector(queue, self._advances))

    def changed(self, job: Job) -> None:
        """Reports a job's current state; the same state may be reported twice."""
        kind = str(job.kind)
        self._advances.note(job, self._clock())
        if not job.status.is_final:
            if job.status is JobStatus.RUNNING and job.attempt > self._open.get(job.id, 0):
                self._starts.labels(kind).inc()
            self._open[job.id] = job.attempt
        elif self._open.pop(job.id, None) is not None:
            if job.failure is not None:
                self._failures.labels(kind, job.failure.code).inc()
            if job.started_at is not None and job.ended_at is not None:
                self._seconds.labels(kind, str(job.status)).observe((job.ended_at - job.started_at).total_seconds())


class Advances:
    """When each running job last advanced: started, changed its stage or made a step."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[tuple[int, str, int], float]] = {}  # by job: how far, and since when

    def note(self, job: Job, at: float) -> None:
        """at: a Unix time."""
        if job.status is not JobStatus.RUNNING:
            self._found.pop(job.id, None)
            return
        reached = (job.attempt, job.progress.stage, job.progress.step)
        if job.id not in self._found or self._found[job.id][0] != reached:
            self._found[job.id] = (reached, at)

    def last(self, job: Job) -> float | None:
        """Its Unix time; None while the job does not run."""
        found = self._found.get(job.id)
        return None if found is None else found[1]


class JobCollector(Collector):
    """How many jobs there are, and how far those are that have not ended."""

    def __init__(self, queue: ObservedQueue, advances: Advances) -> None:
        self._queue = queue
        self._advances = advances

    def collect(self) -> Iterable[Family]:
        counts = slmops_metrics.JOBS.family()
        for key, count in self._queue.counts().items():
            counts.add_metric(key, count)
        ratio, advanced = slmops_metrics.JOB_PROGRESS.family(), slmops_metrics.JOB_PROGRESS_TIME.family()
        rate, figures = slmops_metrics.JOB_STEPS_PER_SECOND.family(), slmops_metrics.JOB_METRIC.family()
        for job in self._queue.active():
            labels, progress = (job.id, str(job.kind)), job.progress
            if progress.total:
                ratio.add_metric(labels, progress.step / progress.total)
            if (at := self._advances.last(job)) is not None:
                advanced.add_metric(labels, at)
            if progress.rate is not None:
                rate.add_metric(labels, progress.rate)
            for name, value in progress.metrics.items():
                if math.isfinite(value):
                    figures.add_metric((*labels, name), value)
        return counts, ratio, advanced, rate, figures
