"""The series of jobs: counted as they move, and read at each scrape. Knows nothing of routes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from jobs.job import Job, JobStatus

_SECONDS = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
_JOB = ("job", "kind")


class ObservedQueue(Protocol):
    """What a scrape needs of the job queue."""

    def counts(self) -> dict[tuple[str, str], int]: ...

    def active(self) -> tuple[Job, ...]: ...


class JobMetrics:
    """Counts what `changed` is told; `watch` adds what is read from a queue."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._open: dict[str, int] = {}  # attempts of the jobs that have not ended
        self._starts = Counter("slmops_job_starts", "Processes started for jobs.", ("kind",), registry=registry)
        self._failures = Counter("slmops_job_failures", "Jobs that failed, by cause.", ("kind", "code"), registry=registry)
        self._seconds = Histogram(
            "slmops_job_duration_seconds",
            "First start to end, pauses included.",
            ("kind", "status"),
            buckets=_SECONDS,
            registry=registry,
        )

    def watch(self, queue: ObservedQueue) -> None:
        self._registry.register(JobCollector(queue))

    def changed(self, job: Job) -> None:
        """A job as it is now; may be told the same twice."""
        kind = str(job.kind)
        if not job.status.is_final:
            if job.status is JobStatus.RUNNING and job.attempt > self._open.get(job.id, 0):
                self._starts.labels(kind).inc()
            self._open[job.id] = job.attempt
        elif self._open.pop(job.id, None) is not None:
            if job.failure is not None:
                self._failures.labels(kind, job.failure.code).inc()
            if job.started_at is not None and job.ended_at is not None:
                self._seconds.labels(kind, str(job.status)).observe((job.ended_at - job.started_at).total_seconds())


class JobCollector(Collector):
    """How many jobs there are, and how far those are that have not ended."""

    def __init__(self, queue: ObservedQueue) -> None:
        self._queue = queue

    def collect(self) -> Iterable[GaugeMetricFamily]:
        counts = GaugeMetricFamily("slmops_jobs", "Jobs, by kind and status.", labels=("kind", "status"))
        for key, count in self._queue.counts().items():
            counts.add_metric(key, count)
        ratio = GaugeMetricFamily("slmops_job_progress_ratio", "Done of a job's present stage, 0 to 1.", labels=_JOB)
        rate = GaugeMetricFamily("slmops_job_steps_per_second", "Steps a second, lately.", labels=_JOB)
        figures = GaugeMetricFamily("slmops_job_metric", "The newest of a job's figures.", labels=(*_JOB, "metric"))
        for job in self._queue.active():
            labels, progress = (job.id, str(job.kind)), job.progress
            if progress.total:
                ratio.add_metric(labels, progress.step / progress.total)
            if progress.rate is not None:
                rate.add_metric(labels, progress.rate)
            for name, value in progress.metrics.items():
                if math.isfinite(value):
                    figures.add_metric((*labels, name), value)
        return counts, ratio, rate, figures
