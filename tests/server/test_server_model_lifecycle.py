"""Series of what happens to models: each moves when its event happens, and what is scraped can be parsed."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from runtime.pool.capacity import Budget, PoolLimits
from runtime.pool.loaded_model import (
    Candidate,
    Died,
    Fallback,
    FellThrough,
    Left,
    Loaded,
    LoadedModel,
    LoadedReplica,
    LoadFailed,
    LoadSpec,
    ModelState,
    PoolEvent,
    UnloadReason,
)
from runtime.pool.memory import MemoryEstimate
from runtime.protocol.errors import NotReady
from runtime.protocol.messages import ProviderChoice, Stats
from server.logs import JsonFormatter
from server.metrics.series import Metrics

pytestmark = pytest.mark.unit

LABEL = "m-1.5b:2"
GPU = Candidate(Path("gpu"), "genai", MemoryEstimate(1), ProviderChoice(name="CUDAExecutionProvider"), "cuda-int4", "policy auto")
CPU = Candidate(Path("cpu"), "onnx", MemoryEstimate(1), ProviderChoice(), "cpu-int8", "what is left")


class Pool:
    """Holds the given versions."""

    def __init__(self, *models: LoadedModel, waiting: tuple[str, ...] = (), broken: tuple[str, ...] = ()) -> None:
        self.limits = PoolLimits(Budget(1000, 2))
        self._models = models
        self._waiting = waiting
        self._broken = broken

    def loaded(self) -> tuple[LoadedModel, ...]:
        return self._models

    def waiting(self) -> tuple[str, ...]:
        return self._waiting

    def broken(self) -> dict[str, NotReady]:
        return {label: NotReady("It failed five times in a row.") for label in self._broken}


def model(*stats: Stats | None, state: ModelState = ModelState.READY, charge_bytes: int = 300) -> LoadedModel:
    """With a replica per snapshot."""
    replicas = tuple(LoadedReplica(state, None, each, num_restarts=1) for each in stats)
    return LoadedModel(LoadSpec(LABEL, (CPU,)), state, CPU, (), replicas, charge_bytes, 5, False, 600, 0, None, None)


def scraped(metrics: Metrics) -> dict[str, float]:
    """Every sample of `slmops_` and `vllm:` by its name and further labels; a sample that stands twice fails."""
    samples = [sample for family in text_string_to_metric_families(metrics.exposition().decode()) for sample in family.samples]
    keys = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in samples]
    assert [key for key, count in Counter(keys).items() if count > 1] == []
    return {name: sample.value for sample in samples if (name := _short(sample.name, sample.labels)).startswith(("slmops", "vllm"))}


def _short(name: str, labels: dict[str, str]) -> str:
    if labels.get("model_name") == "m-1.5b":
        assert labels["engine"] == "2"
    further = [value for label, value in labels.items() if label not in ("model_name", "engine")]
    return " ".join([name, *further])


@pytest.mark.parametrize(
    ("event", "grown"),
    [
        (
            Loaded(LABEL, CPU, 0.3),
            {"slmops_model_loads_total": 1, "slmops_model_load_seconds_count": 1, "slmops_model_load_seconds_sum": 0.3},
        ),
        (LoadFailed(LABEL, "why"), {"slmops_model_load_failures_total": 1}),
        (FellThrough(LABEL, Fallback(GPU, "no driver")), {"slmops_provider_fallbacks_total CUDAExecutionProvider": 1}),
        (Died(LABEL, "killed"), {"slmops_worker_deaths_total": 1}),
        *((Left(LABEL, unload_reason), {f"slmops_model_unloads_total {unload_reason.value}": 1}) for unload_reason in UnloadReason),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_event_moves_its_series_and_no_other(event: PoolEvent, grown: dict[str, float]) -> None:
    metrics = Metrics(Pool())
    metrics.of_model(LABEL)
    before = scraped(metrics)
    metrics.lifecycle(event)
    after = scraped(metrics)
    moved = {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name, 0.0)}
    assert {name: value for name, value in moved.items() if "_bucket" not in name and "_created" not in name} == grown


def test_every_reason_stands_at_zero_from_the_first_request_on() -> None:
    metrics = Metrics(Pool())
    metrics.of_model(LABEL)
    values = scraped(metrics)
    assert {values[f"slmops_model_unloads_total {unload_reason.value}"] for unload_reason in UnloadReason} == {0.0}
    assert values["slmops_worker_deaths_total"] == values["slmops_model_load_failures_total"] == 0.0


@pytest.mark.parametrize(
    ("event", "level", "fields"),
    [
        (Loaded(LABEL, CPU, 0.3), "info", {"event": "model loaded", "engine": "onnx", "reason": "what is left", "seconds": 0.3}),
        (LoadFailed(LABEL, "no room"), "error", {"event": "model not loaded", "why": "no room"}),
        (
            FellThrough(LABEL, Fallback(GPU, "no driver")),
            "warning",
            {"event": "provider could not load, trying the next", "provider": "CUDAExecutionProvider", "why": "no driver"},
        ),
        (Died(LABEL, "it hung"), "error", {"event": "worker died, restarting", "why": "it hung"}),
        (Left(LABEL, UnloadReason.EVICTED), "info", {"event": "model unloaded", "reason": "evicted"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_event_is_a_line_of_the_log(
    event: PoolEvent, level: str, fields: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "slmops.models"):
        Metrics(Pool()).lifecycle(event)
    (record,) = caplog.records
    line = json.loads(JsonFormatter().format(record))
    assert line.items() >= ({"level": level, "model": LABEL} | fields).items()


def test_the_pool_is_read_at_each_scrape() -> None:
    stats = Stats(
        num_running=1,
        num_waiting=2,
        kv_usage=0.5,
        kv_bytes=10,
        prefix_queries_total=7,
        prefix_hits_total=3,
        preemptions_total=4,
        steps_total=9,
        resident_bytes=100,
        threads=2,
        cpu_s=1.5,
    )
    values = scraped(Metrics(Pool(model(stats, stats, None), waiting=("other:1",))))
    assert values["vllm:num_requests_running"] == 2
    assert values["vllm:num_requests_waiting_by_reason capacity"] == 4
    assert values["vllm:kv_cache_usage_perc"] == 0.5
    assert (values["vllm:prefix_cache_queries_total"], values["vllm:prefix_cache_hits_total"]) == (14, 6)
    assert (values["vllm:num_preemptions_total"], values["slmops_engine_steps_total"]) == (8, 18)
    assert (values["slmops_model_resident_bytes"], values["slmops_model_kv_bytes"]) == (200, 20)
    assert (values["slmops_model_threads"], values["slmops_model_replicas"], values["slmops_model_slots"]) == (4, 3, 16)
    assert (values["slmops_worker_restarts_total"], values["slmops_model_leases"]) == (3, 5)
    assert values["slmops_model_cpu_seconds_total"] == 3.0
    assert (values["slmops_model_charged_bytes"], values["slmops_memory_charged_bytes"]) == (300, 300)
    assert (values["slmops_memory_budget_bytes"], values["slmops_model_loads_waiting"]) == (1000, 1)


@pytest.mark.parametrize(
    "states", [(ModelState.READY, ModelState.LOADING), (ModelState.READY, ModelState.UNLOADING), (ModelState.UNLOADING,) * 2]
)
def test_two_of_one_label_are_scraped_once_and_charged_twice(states: tuple[ModelState, ...]) -> None:
    models = [model(None, state=state, charge_bytes=300 + 100 * place) for place, state in enumerate(states)]
    values = scraped(Metrics(Pool(*models)))
    assert values.get("slmops_model_charged_bytes") == (300 if ModelState.READY in states else None)
    assert values["slmops_memory_charged_bytes"] == 700


def test_a_model_is_broken_whether_it_is_loaded_or_not() -> None:
    def broken(pool: Pool) -> dict[str, float]:
        found = Metrics(pool).registry.get_sample_value
        values = {name: found("slmops_model_broken", {"model_name": name, "engine": "2"}) for name in ("m-1.5b", "other")}
        return {name: value for name, value in values.items() if value is not None}

    assert broken(Pool()) == {}
    assert broken(Pool(model(None))) == {"m-1.5b": 0.0}
    assert broken(Pool(model(None), broken=(LABEL, "other:2"))) == {"m-1.5b": 1.0, "other": 1.0}


def test_readiness_is_read_at_each_scrape() -> None:
    metrics, answers = Metrics(Pool()), [True, False]
    metrics.watch_readiness(lambda: answers.pop())
    assert [scraped(metrics)["slmops_ready"] for _ in range(2)] == [0.0, 1.0]
