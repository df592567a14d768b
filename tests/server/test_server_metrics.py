"""vLLM's metrics: the names, labels and buckets that dashboards query, and their values."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.metrics.catalog import described_metrics
from server.metrics.declaration import Declaration
from tests.doubles.live_server import LiveServer, chat_body

LABELS = {"model_name": "smollm2-135m", "engine": "1"}
HISTOGRAMS = [
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_inference_time_seconds",
    "request_time_per_output_token_seconds",
    "request_prompt_tokens",
    "request_generation_tokens",
    "request_max_num_generation_tokens",
    "request_params_max_tokens",
    "request_params_n",
]
COUNTERS = [
    "prompt_tokens_total",
    "generation_tokens_total",
    "prompt_tokens_cached_total",
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
    "num_preemptions_total",
]
GAUGES = ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "cache_config_info"]
OWN = [
    "slmops_http_requests_total",
    "slmops_model_loads_total",
    "slmops_model_load_seconds_count",
    "slmops_model_load_failures_total",
    "slmops_model_loads_waiting",
    "slmops_model_unloads_total",
    "slmops_model_charged_bytes",
    "slmops_model_resident_bytes",
    "slmops_model_replicas",
    "slmops_model_threads",
    "slmops_memory_budget_bytes",
    "slmops_memory_charged_bytes",
    "slmops_worker_deaths_total",
    "slmops_worker_restarts_total",
    "slmops_build_info",
    "slmops_ready",
    "slmops_event_loop_lag_seconds_bucket",
    "slmops_model_broken",
    "slmops_model_cpu_seconds_total",
    "process_resident_memory_bytes",
    "python_gc_collections_total",
]


def samples(http: httpx.Client) -> dict[str, list[tuple[dict[str, str], float]]]:
    """By the sample's name: its labels and value."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(http.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def total(http: httpx.Client, name: str, **labels: str) -> float:
    return sum(value for own, value in samples(http)[name] if labels.items() <= own.items())


@pytest.mark.parametrize("name", [*(f"{h}_{part}" for h in HISTOGRAMS for part in ("bucket", "sum", "count")), *COUNTERS, *GAUGES])
def test_vllms_name_exists_for_the_loaded_model(http: httpx.Client, name: str) -> None:
    assert any(labels.items() >= LABELS.items() for labels, _ in samples(http)[f"vllm:{name}"])


@pytest.mark.parametrize("name", OWN)
def test_our_own_name_exists(http: httpx.Client, name: str) -> None:
    assert samples(http)[name]


def test_what_is_exposed_is_described_with_its_type_labels_and_meaning(http: httpx.Client) -> None:
    described = {each.name: each for each in described_metrics()}
    assert len(described) == len(described_metrics())
    families = [f for f in text_string_to_metric_families(http.get("/metrics").text) if not f.name.endswith("_created")]
    for family in families:
        declared = described[family.name + ("_total" if family.type == "counter" else "")]
        assert (family.type, family.documentation.rstrip(".")) == (declared.type, declared.meaning.rstrip("."))
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(declared.labels), sample.name


def test_nothing_is_described_that_is_never_exposed(http: httpx.Client) -> None:
    exposed = {family.name for family in text_string_to_metric_families(http.get("/metrics").text)}
    assert {each.name for each in described_metrics() if each.name.removesuffix("_total") not in exposed} == set()


@pytest.mark.parametrize("described", described_metrics(), ids=lambda described: described.name)
def test_a_meaning_is_a_sentence(described: Declaration) -> None:
    assert described.meaning.endswith((".", "..."))
    assert described.meaning[0].isupper() or described.meaning[0].isdigit()
    assert len(described.meaning.split()) > 1


def test_every_finished_reason_exists_from_the_start(http: httpx.Client) -> None:
    reasons = {labels["finished_reason"] for labels, _ in samples(http)["vllm:request_success_total"]}
    assert reasons == {"stop", "length", "abort", "error"}


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("time_to_first_token_seconds", {0.001, 0.005, 0.02, 0.1, 0.25, 1, 80, 2560}),
        ("inter_token_latency_seconds", {0.002, 0.004, 0.008, 0.01, 0.015, 0.02, 0.025, 0.05, 80}),
        ("e2e_request_latency_seconds", {0.05, 0.1, 0.2, 0.3, 0.8, 60, 7680}),
    ],
)
def test_buckets_are_vllms_and_finer(http: httpx.Client, name: str, edges: set[float]) -> None:
    found = {float(labels["le"]) for labels, _ in samples(http)[f"vllm:{name}_bucket"]}
    assert found >= edges


def test_a_request_is_counted_once_in_every_place(http: httpx.Client) -> None:
    names = ["vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:inter_token_latency_seconds_count"]
    counts = ["vllm:time_to_first_token_seconds_count", "vllm:e2e_request_latency_seconds_count"]
    before = {name: total(http, name) for name in [*names, *counts]}
    stops = total(http, "vllm:request_success_total", finished_reason="stop")
    usage = http.post("/v1/chat/completions", json=chat_body("[[reply: twelve chars]]")).json()["usage"]
    grown = {name: total(http, name) - before[name] for name in [*names, *counts]}
    tokens = usage["completion_tokens"]
    assert list(grown.values()) == [usage["prompt_tokens"], tokens, tokens - 1, 1, 1]
    assert total(http, "vllm:request_success_total", finished_reason="stop") == stops + 1


def test_failures_count_as_errors(http: httpx.Client) -> None:
    before = total(http, "vllm:request_success_total", finished_reason="error")
    http.post("/v1/chat/completions", json=chat_body("[[fail]]"))
    assert total(http, "vllm:request_success_total", finished_reason="error") == before + 1


def test_http_requests_are_counted_by_route_never_by_path(http: httpx.Client) -> None:
    http.get("/v1/models/some-name-that-nobody-has")
    http.get("/some/path/that/nobody/has")
    routes = {labels["route"] for labels, _ in samples(http)["slmops_http_requests_total"]}
    assert "unmatched" in routes
    assert not any("nobody" in route for route in routes)


def test_a_load_is_counted_once(live: LiveServer, http: httpx.Client) -> None:
    before = total(http, "slmops_model_loads_total")
    http.post("/v1/chat/completions", json=chat_body("hi"))
    assert total(http, "slmops_model_loads_total") == before
    http.post("/admin/models/smollm2-135m/unload")
    http.post("/v1/chat/completions", json=chat_body("hi"))
    assert total(http, "slmops_model_loads_total") == before + 1
