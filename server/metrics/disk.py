"""The series of the disk, read at each scrape from the newest look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from model_registry.disk_space.home_disk import DiskReport
from model_registry.disk_space.kinds import StorageKind
from server.metrics import slmops_metrics


class DiskCollector(Collector):
    """newest: the last report; None before the first. collected: bytes that were removed, by kind."""

    def __init__(self, newest: Callable[[], DiskReport | None], collected: Callable[[], Mapping[StorageKind, int]]) -> None:
        self._newest = newest
        self._collected = collected

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        collected, used = slmops_metrics.DISK_COLLECTED.family(), slmops_metrics.DISK_USED.family()
        quotas, free = slmops_metrics.DISK_QUOTA.family(), slmops_metrics.DISK_FREE.family()
        floor = slmops_metrics.DISK_MIN_FREE.family()
        for kind, num_bytes in self._collected().items():
            collected.add_metric((str(kind),), num_bytes)
        report = self._newest()
        if report is not None:
            for kind, usage in report.usage.kinds.items():
                used.add_metric((str(kind),), usage.used_bytes)
            for kind, quota in report.limits.kinds.items():
                quotas.add_metric((str(kind),), quota)
            if report.limits.max_bytes is not None:
                quotas.add_metric(("total",), report.limits.max_bytes)
            free.add_metric((), report.usage.free_bytes)
            floor.add_metric((), report.limits.floor_bytes(report.usage.total_bytes))
        return collected, used, quotas, free, floor
