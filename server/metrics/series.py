"""The series that are counted as requests pass and as models are loaded and unloaded: one Prometheus registry per app."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from runtime.pool.loaded_model import Died, FellThrough, Left, Loaded, LoadFailed, PoolEvent, UnloadReason
from server.metrics import slmops_metrics, vllm_metrics
from server.metrics.collectors import ObservedPool, PoolCollector
from server.metrics.declaration import Declaration, labels_of
from server.version import slmops_version

_log = logging.getLogger("slmops.models")


class ModelLifecycle:
    """Listens to one pool."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._loads = slmops_metrics.MODEL_LOADS.counter(registry)
        self._load_failures = slmops_metrics.MODEL_LOAD_FAILURES.counter(registry)
        self._fallbacks = slmops_metrics.PROVIDER_FALLBACKS.counter(registry)
        self._deaths = slmops_metrics.WORKER_DEATHS.counter(registry)
        self._unloads = slmops_metrics.MODEL_UNLOADS.counter(registry)
        self._load_seconds = slmops_metrics.MODEL_LOAD_SECONDS.histogram(registry)

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


class ModelMetrics:
    """The series of one version of a model, bound to their labels once, so that counting a token is one call."""

    def __init__(self, metrics: Metrics, labels: tuple[str, str]) -> None:
        def histogram(declared: Declaration) -> Histogram:
            return metrics.histograms[declared.name].labels(*labels)

        def counter(declared: Declaration) -> Counter:
            return metrics.counters[declared.name].labels(*labels)

        def counters(declared: Declaration) -> Mapping[str, Counter]:
            return {value: metrics.counters[declared.name].labels(*labels, value) for value in declared.values}

        self.time_to_first_token = histogram(vllm_metrics.TIME_TO_FIRST_TOKEN)
        self.inter_token_latency = histogram(vllm_metrics.INTER_TOKEN_LATENCY)
        self.time_per_output_token = histogram(vllm_metrics.TIME_PER_OUTPUT_TOKEN)
        self.e2e_latency = histogram(vllm_metrics.E2E_LATENCY)
        self.queue_time = histogram(vllm_metrics.QUEUE_TIME)
        self.prefill_time = histogram(vllm_metrics.PREFILL_TIME)
        self.decode_time = histogram(vllm_metrics.DECODE_TIME)
        self.inference_time = histogram(vllm_metrics.INFERENCE_TIME)
        self.request_prompt_tokens = histogram(vllm_metrics.REQUEST_PROMPT_TOKENS)
        self.request_generation_tokens = histogram(vllm_metrics.REQUEST_GENERATION_TOKENS)
        self.request_max_generation_tokens = histogram(vllm_metrics.REQUEST_MAX_GENERATION_TOKENS)
        self.request_params_max_tokens = histogram(vllm_metrics.REQUEST_PARAMS_MAX_TOKENS)
        self.request_params_n = histogram(vllm_metrics.REQUEST_PARAMS_N)
        self.prompt_tokens = counter(vllm_metrics.PROMPT_TOKENS)
        self.prompt_tokens_cached = counter(vllm_metrics.PROMPT_TOKENS_CACHED)
        self.generation_tokens = counter(vllm_metrics.GENERATION_TOKENS)
        self.request_success = counters(vllm_metrics.REQUEST_SUCCESS)
        self.admission_rejections = counters(vllm_metrics.ADMISSION_REJECTIONS)


class Metrics:
    """The registry and everything in it. The label `engine` is the version's number: one engine serves one version."""

    def __init__(self, pool: ObservedPool) -> None:
        self.registry = CollectorRegistry()
        self.histograms = {declared.name: declared.histogram(self.registry) for declared in vllm_metrics.HISTOGRAMS}
        self.counters = {declared.name: declared.counter(self.registry) for declared in vllm_metrics.COUNTERS}
        self.lifecycle = ModelLifecycle(self.registry)
        self.event_loop_lag = slmops_metrics.EVENT_LOOP_LAG.histogram(self.registry)
        self._http_requests = slmops_metrics.HTTP_REQUESTS.counter(self.registry)
        self._http_seconds = slmops_metrics.HTTP_SECONDS.histogram(self.registry)
        self._models: dict[str, ModelMetrics] = {}
        self.registry.register(PoolCollector(pool))
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        slmops_metrics.BUILD_INFO.gauge(self.registry).labels(slmops_version()).set(1)

    def watch_readiness(self, is_ready: Callable[[], bool]) -> None:
        """is_ready: called at each scrape."""
        slmops_metrics.READY.gauge(self.registry).set_function(is_ready)

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
