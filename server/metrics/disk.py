"""The series of the disk, read at each scrape from the newest look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from model_registry.disk_space.home_disk import DiskReport
from model_registry.disk_space.kinds import StorageKind

_KIND = ("kind",)


class DiskCollector(Collector):
    """newest: the last report; None before the first. collected: bytes that were removed, by kind."""

    def __init__(self, newest: Callable[[], DiskReport | None], collected: Callable[[], Mapping[StorageKind, int]]) -> None:
        self._newest = newest
        self._collected = collected

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        collected = CounterMetricFamily("slmops_disk_collected_bytes", "Removed to make room, by kind.", labels=_KIND)
        for kind, num_bytes in self._collected().items():
            collected.add_metric((str(kind),), num_bytes)
        yield collected
        report = self._newest()
        if report is None:
            return
        used = GaugeMetricFamily("slmops_disk_used_bytes", "What the home takes of the disk, by kind.", labels=_KIND)
        for kind, usage in report.usage.kinds.items():
            used.add_metric((str(kind),), usage.used_bytes)
        yield used
        yield GaugeMetricFamily("slmops_disk_free_bytes", "Free on the home's file system.", value=report.usage.free_bytes)
        quotas = GaugeMetricFamily("slmops_disk_quota_bytes", "What a kind may take; `total` is the home.", labels=_KIND)
        for kind, quota in report.limits.kinds.items():
            quotas.add_metric((str(kind),), quota)
        if report.limits.max_bytes is not None:
            quotas.add_metric(("total",), report.limits.max_bytes)
        yield quotas
        floor = report.limits.floor_bytes(report.usage.total_bytes)
        yield GaugeMetricFamily("slmops_disk_min_free_bytes", "What new work has to leave free.", value=floor)
