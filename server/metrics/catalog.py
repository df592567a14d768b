"""Every metric that /metrics can expose, described: what the reference of metrics is made from."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from server.metrics import slmops_metrics, vllm_metrics
from server.metrics.declaration import Declaration, MetricType


def described_metrics() -> tuple[Declaration, ...]:
    """All under `vllm:`, then `slmops_`, then those of the gateway's process: each with its type, labels and meaning.

    `process_*` exist on Linux only.
    """
    return (
        *(*vllm_metrics.HISTOGRAMS, *vllm_metrics.COUNTERS, *vllm_metrics.OF_WORKERS),
        *(*slmops_metrics.OF_DAEMON, *slmops_metrics.OF_LIFECYCLE, *slmops_metrics.OF_LOADED_MODELS, *slmops_metrics.OF_JOBS),
        *slmops_metrics.OF_DISK,
        *_of_process(),
    )


def _of_process() -> Iterator[Declaration]:
    """What prometheus-client itself counts of the process that imports it."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    for family in registry.collect():
        labels = tuple(dict.fromkeys(label for sample in family.samples for label in sample.labels))
        suffix = "_total" if family.type == "counter" else ""
        yield Declaration(MetricType(family.type), family.name + suffix, f"{family.documentation.rstrip('.')}.", labels)
