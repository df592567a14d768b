"""The page of metrics: every one that `/metrics` can expose, from its declaration."""

from __future__ import annotations

from collections.abc import Iterable

from docs.generators import markdown
from server.metrics.catalog import described_metrics
from server.metrics.declaration import MODEL_LABELS, Declaration, MetricType

INTRODUCTION = """\
What `GET /metrics` answers, in Prometheus' text format. Once there are keys, it needs one with the scope `read`. How to scrape it,
with dashboards and alerts: [Monitoring](../operate/monitoring.md).

*Model* among the labels means `model_name` (the model) and `engine` (the number of the version). Counters of the engine start again
with their worker, as Prometheus expects; those of several replicas are added up. A histogram has `_bucket`, `_sum` and `_count`."""
PARTS = {
    "vllm:": (
        "Under `vllm:`",
        "vLLM's names and meanings, so that its dashboards work unmodified. Buckets are finer below.",
    ),
    "slmops_": ("Under `slmops_`", "What vLLM has no name for."),
    "": ("The gateway's process", "As prometheus-client counts them, of the gateway alone; `process_*` on Linux only."),
}


def page() -> str:
    left = list(described_metrics())
    parts = []
    for prefix, (title, introduction) in PARTS.items():
        here = [each for each in left if each.name.startswith(prefix)]
        left = [each for each in left if each not in here]
        parts += [f"## {title}", introduction, _table(here)]
    return markdown.page("Metrics", INTRODUCTION, *parts)


def _table(metrics: Iterable[Declaration]) -> str:
    rows = [(markdown.code(each.name), each.type.value, _labels(each), _meaning(each)) for each in metrics]
    return markdown.table(("metric", "type", "labels", "meaning"), rows)


def _labels(metric: Declaration) -> str:
    is_of_model = metric.labels[: len(MODEL_LABELS)] == MODEL_LABELS
    further = metric.labels[len(MODEL_LABELS) :] if is_of_model else metric.labels
    return ", ".join([*(["model"] if is_of_model else []), *(markdown.code(label) for label in further)])


def _meaning(metric: Declaration) -> str:
    values = f" Values: {', '.join(markdown.code(value) for value in metric.values)}." if metric.values else ""
    finite = [edge for edge in metric.buckets if edge != float("inf")]
    buckets = f" Buckets from {finite[0]:g} to {finite[-1]:g}." if metric.type is MetricType.HISTOGRAM and finite else ""
    return markdown.sentence(metric.meaning) + values + buckets
