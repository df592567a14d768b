"""What happens to models in the pool, counted and logged: loads, failures, fallbacks, deaths of workers, departures."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry, Counter, Histogram

from runtime.pool.loaded_model import Departure, Died, FellThrough, Left, Loaded, LoadFailed, PoolEvent
from server.metric_names import LABELS, labels_of

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
        self._departures = counter("slmops_model_unloads", "Models that left memory, by reason.", "reason")
        self._load_seconds = Histogram(
            "slmops_model_load_seconds", "Duration of a load.", LABELS, buckets=_LOAD_S, registry=registry
        )

    def begin(self, label: str) -> None:
        """The series of this model exist, at zero."""
        labels = labels_of(label)
        for series in (self._loads, self._load_failures, self._deaths, self._load_seconds):
            series.labels(*labels)
        for departure in Departure:
            self._departures.labels(*labels, departure.value)

    def __call__(self, event: PoolEvent) -> None:
        labels = labels_of(event.label)
        match event:
            case Loaded(label, candidate, seconds):
                self._loads.labels(*labels).inc()
                self._load_seconds.labels(*labels).observe(seconds)
                where = {"engine": candidate.engine, "provider": candidate.provider.name, "reason": candidate.reason}
                _tell(logging.INFO, "model loaded", label, seconds=round(seconds, 2), variant=candidate.variant, **where)
            case LoadFailed(label, why):
                self._load_failures.labels(*labels).inc()
                _tell(logging.ERROR, "model not loaded", label, why=why)
            case FellThrough(label, fallback):
                provider = fallback.candidate.provider.name
                self._fallbacks.labels(*labels, provider).inc()
                _tell(logging.WARNING, "provider could not load, trying the next", label, provider=provider, why=fallback.why)
            case Died(label, why):
                self._deaths.labels(*labels).inc()
                _tell(logging.ERROR, "worker died, restarting", label, why=why)
            case Left(label, departure):
                self._departures.labels(*labels, departure.value).inc()
                _tell(logging.INFO, "model unloaded", label, reason=departure.value)


def _tell(level: int, what: str, label: str, **fields: object) -> None:
    _log.log(level, what, extra={"fields": {"model": label, **fields}})
