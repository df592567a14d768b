"""The series that are read of the pool at each scrape: queues, KV use, prefix cache, memory. Knows no routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from runtime.pool.capacity import PoolLimits
from runtime.pool.loaded_model import LoadedModel, ModelState
from runtime.protocol.errors import NotReady
from runtime.protocol.messages import Stats
from server.metrics import slmops_metrics, vllm_metrics
from server.metrics.declaration import Declaration, Family, labels_of


class ObservedPool(Protocol):
    """What a scrape needs of the pool."""

    @property
    def limits(self) -> PoolLimits: ...

    def loaded(self) -> tuple[LoadedModel, ...]: ...

    def waiting(self) -> tuple[str, ...]: ...

    def broken(self) -> Mapping[str, NotReady]: ...


# Of a worker's snapshot; a model without one counts as 0.
_OF_STATS: tuple[tuple[Declaration, Callable[[Stats], float]], ...] = (
    (vllm_metrics.REQUESTS_RUNNING, lambda s: s.num_running),
    (vllm_metrics.REQUESTS_WAITING, lambda s: s.num_waiting),
    (vllm_metrics.KV_CACHE_USAGE, lambda s: s.kv_usage),
    (vllm_metrics.PREFIX_CACHE_QUERIES, lambda s: s.prefix_queries_total),
    (vllm_metrics.PREFIX_CACHE_HITS, lambda s: s.prefix_hits_total),
    (vllm_metrics.PREEMPTIONS, lambda s: s.preemptions_total),
    (slmops_metrics.ENGINE_STEPS, lambda s: s.steps_total),
    (slmops_metrics.CPU_SECONDS, lambda s: s.cpu_s),
    (slmops_metrics.RESIDENT_BYTES, lambda s: s.resident_bytes),
    (slmops_metrics.KV_BYTES, lambda s: s.kv_bytes),
    (slmops_metrics.THREADS, lambda s: s.threads),
)
_OF_MODEL: tuple[tuple[Declaration, Callable[[LoadedModel], float]], ...] = (
    (slmops_metrics.WORKER_RESTARTS, lambda m: m.num_restarts),
    (slmops_metrics.LEASES, lambda m: m.num_leases),
    (slmops_metrics.SLOTS, lambda m: m.num_slots),
    (slmops_metrics.REPLICAS, lambda m: len(m.replicas)),
    (slmops_metrics.CHARGED_BYTES, lambda m: m.charge_bytes),
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
        for declaration, of_stats in _OF_STATS:
            yield _of_each(declaration, loaded, _or_zero(of_stats))
        for declaration, of_model in _OF_MODEL:
            yield _of_each(declaration, loaded, of_model)
        yield _waiting_by_reason(loaded)
        yield _cache_config(loaded)
        yield _broken({model.spec.label for model in loaded}, self._pool.broken())
        charged = sum(model.charge_bytes for model in everything)
        yield _single(slmops_metrics.MEMORY_BUDGET, self._pool.limits.budget.memory_bytes)
        yield _single(slmops_metrics.MEMORY_CHARGED, charged)
        yield _single(slmops_metrics.LOADS_WAITING, len(self._pool.waiting()))


def _one_per_label(models: Sequence[LoadedModel]) -> list[LoadedModel]:
    """One model per label. While a model is replaced there are two: the serving one is kept, the leaving one is left out."""
    staying = [model for model in models if model.state is not ModelState.UNLOADING]
    return list({model.spec.label: model for model in reversed(staying)}.values())


def _or_zero(of_stats: Callable[[Stats], float]) -> Callable[[LoadedModel], float]:
    return lambda model: of_stats(model.stats) if model.stats else 0.0


def _of_each(declaration: Declaration, loaded: Sequence[LoadedModel], read: Callable[[LoadedModel], float]) -> Family:
    family = declaration.family()
    for model in loaded:
        family.add_metric(labels_of(model.spec.label), float(read(model)))
    return family


def _single(declaration: Declaration, value: float) -> Family:
    family = declaration.family()
    family.add_metric((), float(value))
    return family


def _waiting_by_reason(loaded: Sequence[LoadedModel]) -> Family:
    family = vllm_metrics.REQUESTS_WAITING_BY_REASON.family()
    for model in loaded:
        family.add_metric((*labels_of(model.spec.label), "capacity"), float(model.stats.num_waiting if model.stats else 0))
    return family


def _cache_config(loaded: Sequence[LoadedModel]) -> Family:
    family = vllm_metrics.CACHE_CONFIG.family()
    for model in loaded:
        if model.info is not None:
            num_positions = model.num_slots * model.info.context_length
            caching = str(model.spec.options.prefix_cache_bytes > 0)
            family.add_metric((*labels_of(model.spec.label), "1", str(num_positions), caching), 1.0)
    return family


def _broken(loaded: set[str], broken: Mapping[str, NotReady]) -> Family:
    family = slmops_metrics.MODEL_BROKEN.family()
    for label in sorted(loaded | broken.keys()):
        family.add_metric(labels_of(label), float(label in broken))
    return family
