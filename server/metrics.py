"""What Prometheus sees: one registry per app, the series of every model that was used, and those of the daemon itself.

Counters and histograms are counted by the requests as they pass; gauges are read from the pool at each scrape.
Knows nothing of HTTP routes beyond their names.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from runtime.pool.loaded_model import PoolEvent
from server import metric_names as names
from server.metric_names import LABELS, CounterName, HistogramName, labels_of
from server.model_lifecycle import ModelLifecycle
from server.pool_collector import ObservedPool, PoolCollector
from server.version import slmops_version

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
