"""The series that are counted as requests pass and as models are loaded and unloaded: one Prometheus registry per app."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from runtime.pool.loaded_model import Died, FellThrough, Left, Loaded, LoadFailed, PoolEvent, UnloadReason
from server.metrics import names
from server.metrics.collectors import ObservedPool, PoolCollector
from server.metrics.names import LABELS, CounterName, HistogramName, labels_of
from server.version import slmops_version

_LOAD_S = (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 40, 80, 160)
_log = logging.getLogger("slmops.models")


class ModelLifecycle:
    """Listens to one pool."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, meaning: str, *further: str) -> Counter:
            return Counter(name, meaning, (*LABELS, *further), registry=registry)

        self._loads = counter("slmops_model_loads", "Loads of a model.")
        self._load_failures = counter("slmops_model_load_failures", "Loads that failed on every provider.")
        self._fallbacks = counter("slmops_provider_fallbacks", "Providers that could not load, so that the next did.", "provider")
        self._deaths = counter("slmops_worker_deaths", "Workers that ended by themselves, or because they hung.")
        self._unloads = counter("slmops_model_unloads", "Models that left memory, by reason.", "reason")
        self._load_seconds = Histogram(
            "slmops_model_load_seconds", "Duration of a load.", LABELS, buckets=_LOAD_S, registry=registry
        )

    def begin(self, label: str) -> None:
        """The series of this model exist, at zero."""
        labels = labels_of(label)
        for series in (self._loads, self._load_failures, self._deaths, self._load_seconds):
            series.labels(*labels)
        for unload_reason in UnloadReason:
            self._unloads.labels(*labels, unload_reason.value)

    def __call__(self, event: PoolEvent) -> None:
        labels = labels_of(event.label)
        match event:
            case Loaded(label, candidate, seconds):
                self._loads.labels(*labels).inc()
                self._load_seconds.labels(*labels).observe(seconds)
                where = {"engine": candidate.engine, "provider": candidate.provider.name, "reason": candidate.reason}
                _log_event(logging.INFO, "model loaded", label, seconds=round(seconds, 2), variant=candidate.variant, **where)
            case LoadFailed(label, why):
                self._load_failures.labels(*labels).inc()
                _log_event(logging.ERROR, "model not loaded", label, why=why)
            case FellThrough(label, fallback):
                provider = fallback.candidate.provider.name
                self._fallbacks.labels(*labels, provider).inc()
                _log_event(logging.WARNING, "provider could not load, trying the next", label, provider=provider, why=fallback.why)
            case Died(label, why):
                self._deaths.labels(*labels).inc()
                _log_event(logging.ERROR, "worker died, restarting", label, why=why)
            case Left(label, unload_reason):
                self._unloads.labels(*labels, unload_reason.value).inc()
                _log_event(logging.INFO, "model unloaded", label, reason=unload_reason.value)


def _log_event(level: int, what: str, label: str, **fields: object) -> None:
    _log.log(level, what, extra={"fields": {"model": label, **fields}})


_HTTP_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600)


class ModelMetrics:
    """The series of one version of a model, bound to their labels once, so that counting a token is one call."""

    def __init__(self, metrics: Metrics, labels: tuple[str, str]) -> None:
        def histogram(name: HistogramName) -> Histogram:
            return metrics.histograms[name.name].labels(*labels)

        def counter(name: CounterName) -> Counter:
            return metrics.counters[name.name].labels(*labels)

        def counters(name: CounterName) -> Mapping[str, Counter]:
            return {value: metrics.counters[name.name].labels(*labels, value) for value in name.values}

        self.time_to_first_token = histogram(names.TIME_TO_FIRST_TOKEN)
        self.inter_token_latency = histogram(names.INTER_TOKEN_LATENCY)
        self.time_per_output_token = histogram(names.TIME_PER_OUTPUT_TOKEN)
        self.e2e_latency = histogram(names.E2E_LATENCY)
        self.queue_time = histogram(names.QUEUE_TIME)
        self.prefill_time = histogram(names.PREFILL_TIME)
        self.decode_time = histogram(names.DECODE_TIME)
        self.inference_time = histogram(names.INFERENCE_TIME)
        self.request_prompt_tokens = histogram(names.REQUEST_PROMPT_TOKENS)
        self.request_generation_tokens = histogram(names.REQUEST_GENERATION_TOKENS)
        self.request_max_generation_tokens = histogram(names.REQUEST_MAX_GENERATION_TOKENS)
        self.request_params_max_tokens = histogram(names.REQUEST_PARAMS_MAX_TOKENS)
        self.request_params_n = histogram(names.REQUEST_PARAMS_N)
        self.prompt_tokens = counter(names.PROMPT_TOKENS)
        self.prompt_tokens_cached = counter(names.PROMPT_TOKENS_CACHED)
        self.generation_tokens = counter(names.GENERATION_TOKENS)
        self.request_success = counters(names.REQUEST_SUCCESS)
        self.admission_rejections = counters(names.ADMISSION_REJECTIONS)


class Metrics:
    """The registry and everything in it. The label `engine` is the version's number: one engine serves one version."""

    def __init__(self, pool: ObservedPool) -> None:
        self.registry = CollectorRegistry()
        self.histograms = {
            name.name: Histogram(name.name, name.meaning, LABELS, buckets=name.buckets, registry=self.registry)
            for name in vars(names).values()
            if isinstance(name, HistogramName)
        }
        self.counters = {
            name.name: Counter(name.name, name.meaning, (*LABELS, *_further(name)), registry=self.registry)
            for name in vars(names).values()
            if isinstance(name, CounterName)
        }
        self.lifecycle = ModelLifecycle(self.registry)
        self._http_requests = Counter(
            "slmops_http_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._http_seconds = Histogram(
            "slmops_http_request_seconds", "Duration of requests.", ("route",), buckets=_HTTP_S, registry=self.registry
        )
        self._models: dict[str, ModelMetrics] = {}
        self.registry.register(PoolCollector(pool))
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = Gauge("slmops_build_info", "1, with the version as a label.", ("version",), registry=self.registry)
        build.labels(slmops_version()).set(1)

    def http_request(self, method: str, route: str, status: int, duration_s: float) -> None:
        self._http_requests.labels(method, route, str(status)).inc()
        self._http_seconds.labels(route).observe(duration_s)

    def pool_event(self, event: PoolEvent) -> None:
        """A listener of the pool: what happens to a model there is counted, and its series exist."""
        self.of_model(event.label)
        self.lifecycle(event)

    def of_model(self, label: str) -> ModelMetrics:
        """label: `name:number`. The series exist, at zero, from the first call on."""
        found = self._models.get(label)
        if found is None:
            found = self._models[label] = ModelMetrics(self, labels_of(label))
            self.lifecycle.begin(label)
        return found

    def exposition(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self.registry)


def _further(name: CounterName) -> tuple[str, ...]:
    return (name.label,) if name.label else ()
