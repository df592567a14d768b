"""The series that are read at each scrape: of the pool (queues, KV use, prefix cache, memory) and of jobs. Knows no routes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs.job import Job, JobStatus
from runtime.pool.capacity import PoolLimits
from runtime.pool.loaded_model import LoadedModel, ModelState
from runtime.protocol.messages import Stats
from server.metrics.names import LABELS, labels_of

_Family = GaugeMetricFamily | CounterMetricFamily


class ObservedPool(Protocol):
    """What a scrape needs of the pool."""

    @property
    def limits(self) -> PoolLimits: ...

    def loaded(self) -> tuple[LoadedModel, ...]: ...

    def waiting(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class _Series:
    """read: the value of a worker's snapshot; a model without one counts as 0. further: one more label with its value."""

    kind: type[_Family]
    name: str
    meaning: str
    read: Callable[[Stats], float]
    further: tuple[str, str] | None = None


_BY_CAPACITY = ("reason", "capacity")
_OF_STATS = (
    _Series(GaugeMetricFamily, "vllm:num_requests_running", "Sequences in slots.", lambda s: s.num_running),
    _Series(GaugeMetricFamily, "vllm:num_requests_waiting", "Sequences queued.", lambda s: s.num_waiting),
    _Series(
        GaugeMetricFamily,
        "vllm:num_requests_waiting_by_reason",
        "Sequences queued, by reason.",
        lambda s: s.num_waiting,
        _BY_CAPACITY,
    ),
    _Series(GaugeMetricFamily, "vllm:kv_cache_usage_perc", "Part of the KV in use, 0 to 1.", lambda s: s.kv_usage),
    _Series(CounterMetricFamily, "vllm:prefix_cache_queries", "Prompt tokens looked up.", lambda s: s.prefix_queries_total),
    _Series(CounterMetricFamily, "vllm:prefix_cache_hits", "Prompt tokens found.", lambda s: s.prefix_hits_total),
    _Series(CounterMetricFamily, "vllm:num_preemptions", "Slots taken back.", lambda s: s.preemptions_total),
    _Series(CounterMetricFamily, "slmops_engine_steps", "Steps of the engine.", lambda s: s.steps_total),
    _Series(GaugeMetricFamily, "slmops_model_resident_bytes", "Memory of the worker.", lambda s: s.resident_bytes),
    _Series(GaugeMetricFamily, "slmops_model_kv_bytes", "KV memory backed by pages.", lambda s: s.kv_bytes),
    _Series(GaugeMetricFamily, "slmops_model_threads", "Threads that its workers compute with.", lambda s: s.threads),
)


class PoolCollector(Collector):
    """Collects the pool's metrics. Counters restart with their worker, as Prometheus expects."""

    def __init__(self, pool: ObservedPool) -> None:
        self._pool = pool

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        everything = self._pool.loaded()
        loaded = _one_per_label(everything)
        yield from (_of_stats(series, loaded) for series in _OF_STATS)
        yield from (_of_model(*series, loaded) for series in _OF_MODEL)
        yield _cache_config(loaded)
        charged = sum(model.charge_bytes for model in everything)
        yield _gauge("slmops_memory_budget_bytes", "Memory that all models may take.", self._pool.limits.budget.memory_bytes)
        yield _gauge("slmops_memory_charged_bytes", "Of the budget, what the models in memory are charged.", charged)
        yield _gauge("slmops_model_loads_waiting", "Loads that wait for room.", len(self._pool.waiting()))


_OF_MODEL: tuple[tuple[type[_Family], str, str, Callable[[LoadedModel], float]], ...] = (
    (CounterMetricFamily, "slmops_worker_restarts", "Workers that died and were replaced.", lambda m: m.num_restarts),
    (GaugeMetricFamily, "slmops_model_leases", "Requests that hold the model.", lambda m: m.num_leases),
    (GaugeMetricFamily, "slmops_model_slots", "Sequences decoded together, at most.", lambda m: m.num_slots),
    (GaugeMetricFamily, "slmops_model_replicas", "Workers.", lambda m: len(m.replicas)),
    (GaugeMetricFamily, "slmops_model_charged_bytes", "What the memory budget counts for it.", lambda m: m.charge_bytes),
)


def _one_per_label(models: Sequence[LoadedModel]) -> list[LoadedModel]:
    """One model per label. While a model is replaced there are two: the serving one is kept, the leaving one is left out."""
    staying = [model for model in models if model.state is not ModelState.UNLOADING]
    return list({model.spec.label: model for model in reversed(staying)}.values())


def _of_model(
    kind: type[_Family], name: str, meaning: str, read: Callable[[LoadedModel], float], loaded: Sequence[LoadedModel]
) -> _Family:
    family = kind(name, meaning, labels=LABELS)
    for model in loaded:
        family.add_metric(labels_of(model.spec.label), float(read(model)))
    return family


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=float(value))


def _of_stats(series: _Series, loaded: Sequence[LoadedModel]) -> _Family:
    names, values = (series.further[:1], series.further[1:]) if series.further else ((), ())
    family = series.kind(series.name, series.meaning, labels=(*LABELS, *names))
    for model in loaded:
        value = series.read(model.stats) if model.stats else 0.0
        family.add_metric((*labels_of(model.spec.label), *values), float(value))
    return family


def _cache_config(loaded: Sequence[LoadedModel]) -> GaugeMetricFamily:
    labels = (*LABELS, "block_size", "num_gpu_blocks", "enable_prefix_caching")
    family = GaugeMetricFamily("vllm:cache_config_info", "The KV cache, as blocks of one token.", labels=labels)
    for model in loaded:
        if model.info is not None:
            num_positions = model.num_slots * model.info.context_length
            caching = str(model.spec.options.prefix_cache_bytes > 0)
            family.add_metric((*labels_of(model.spec.label), "1", str(num_positions), caching), 1.0)
    return family


_SECONDS = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
_JOB = ("job", "kind")


class ObservedQueue(Protocol):
    """What a scrape needs of the job queue."""

    def counts(self) -> dict[tuple[str, str], int]: ...

    def active(self) -> tuple[Job, ...]: ...


class JobMetrics:
    """Counts the changes that are reported to `changed`; `watch` adds what is read from a queue."""

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
        """Reports a job's current state; the same state may be reported twice."""
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
