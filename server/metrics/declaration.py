"""How a metric is declared, once: its name, type, labels and meaning. Collectors and counters are built from declarations."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

MODEL_LABELS = ("model_name", "engine")
Family = GaugeMetricFamily | CounterMetricFamily


class MetricType(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Declaration:
    """One metric. name: as it is queried, without the `_bucket`, `_sum` and `_count` of a histogram. meaning: one sentence.

    buckets: upper edges of a histogram. values: what the last label can be, where that is known beforehand.
    """

    type: MetricType
    name: str
    meaning: str
    labels: tuple[str, ...] = MODEL_LABELS
    buckets: tuple[float, ...] = ()
    values: tuple[str, ...] = ()

    def counter(self, registry: CollectorRegistry) -> Counter:
        assert self.type is MetricType.COUNTER
        return Counter(self.name, self.meaning, self.labels, registry=registry)

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        assert self.type is MetricType.GAUGE
        return Gauge(self.name, self.meaning, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        assert self.type is MetricType.HISTOGRAM
        return Histogram(self.name, self.meaning, self.labels, buckets=self.buckets, registry=registry)

    def family(self) -> Family:
        """Without samples: for a collector, which adds those of one scrape."""
        assert self.type is not MetricType.HISTOGRAM
        kind: type[Family] = CounterMetricFamily if self.type is MetricType.COUNTER else GaugeMetricFamily
        return kind(self.name, self.meaning, labels=self.labels)


def counter(
    name: str, meaning: str, *further: str, labels: tuple[str, ...] = MODEL_LABELS, values: tuple[str, ...] = ()
) -> Declaration:
    """further: labels beside the model's. name: ends in `_total`."""
    assert name.endswith("_total")
    return Declaration(MetricType.COUNTER, name, meaning, (*labels, *further), values=values)


def gauge(name: str, meaning: str, *further: str, labels: tuple[str, ...] = MODEL_LABELS) -> Declaration:
    """further: labels beside the model's."""
    return Declaration(MetricType.GAUGE, name, meaning, (*labels, *further))


def histogram(name: str, meaning: str, buckets: tuple[float, ...], *, labels: tuple[str, ...] = MODEL_LABELS) -> Declaration:
    return Declaration(MetricType.HISTOGRAM, name, meaning, labels, buckets)


def labels_of(label: str) -> tuple[str, str]:
    """`smollm2-135m:1` -> its model_name and engine."""
    name, _, number = label.rpartition(":")
    return (name, number) if name else (label, "0")
