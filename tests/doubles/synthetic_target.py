"""A scrape target that exposes every metric that slmops describes, with each label that rules and dashboards select by."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from server.metrics.catalog import described_metrics
from server.metrics.declaration import Declaration, MetricType

_VALUES = {
    "status": ("200", "500", "429", "running", "queued", "interrupted", "succeeded"),
    "finished_reason": ("stop", "error"),
    "reason": ("capacity", "queue_full", "evicted"),
    "metric": ("loss", "learning_rate"),
    "kind": ("finetune", "versions", "total"),
    "route": ("/v1/chat/completions", "/ready"),
}
_GAUGES = {"slmops_job_progress_timestamp_seconds": time.time, "process_start_time_seconds": time.time}


class SyntheticTarget:
    """Its series stand still until `advance` is called."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._series = [series for declared in described_metrics() for series in _series_of(declared, self.registry)]
        self.advance()

    def advance(self) -> None:
        """Every counter and histogram grows, and every gauge has a value above 0."""
        for name, series in self._series:
            match series:
                case Counter():
                    series.inc(3)
                case Histogram():
                    series.observe(0.3)
                case Gauge():
                    series.set(_GAUGES.get(name, lambda: 0.5)())


def _series_of(declared: Declaration, registry: CollectorRegistry) -> Iterator[tuple[str, Counter | Gauge | Histogram]]:
    build = {MetricType.COUNTER: declared.counter, MetricType.GAUGE: declared.gauge, MetricType.HISTOGRAM: declared.histogram}
    parent = build[declared.type](registry)
    for values in itertools.product(*(_VALUES.get(label, (f"some-{label}",)) for label in declared.labels)):
        yield declared.name, parent.labels(*values) if values else parent


class _Handler(BaseHTTPRequestHandler):
    """Answers every GET as the daemon's /metrics does."""

    registry: CollectorRegistry

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.end_headers()
        self.wfile.write(generate_latest(self.registry))

    def log_message(self, format: str, *args: object) -> None:
        """Tests print nothing."""


@contextmanager
def synthetic_target() -> Iterator[tuple[SyntheticTarget, str]]:
    """With its address on loopback, `host:port`."""
    target = SyntheticTarget()
    handler = type("Handler", (_Handler,), {"registry": target.registry})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield target, f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
