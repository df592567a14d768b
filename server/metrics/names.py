"""Names, meanings and buckets of the metrics that vLLM dashboards query. Data; seconds and tokens."""

from __future__ import annotations

from dataclasses import dataclass

LABELS = ("model_name", "engine")

_LATENCY_S = (
    0.05,
    0.1,
    0.2,
    0.3,
    0.5,
    0.8,
    1,
    1.5,
    2,
    2.5,
    5,
    10,
    15,
    20,
    30,
    40,
    50,
    60,
    120,
    240,
    480,
    960,
    1920,
    7680,
)
_FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560),
)
_TOKEN_GAP_S = (
    *(0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.05, 0.075, 0.1, 0.15),
    *(0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80),
)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000)
_COUNT = (1, 2, 5, 10, 20)


def labels_of(label: str) -> tuple[str, str]:
    """`smollm2-135m:1` -> its model_name and engine."""
    name, _, number = label.rpartition(":")
    return (name, number) if name else (label, "0")


@dataclass(frozen=True, slots=True)
class HistogramName:
    name: str
    meaning: str
    buckets: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CounterName:
    """name: without `_total`. label: one further label, if it has one, and the values that it can take."""

    name: str
    meaning: str
    label: str | None = None
    values: tuple[str, ...] = ()


TIME_TO_FIRST_TOKEN = HistogramName("vllm:time_to_first_token_seconds", "Arrival to the first token.", _FIRST_TOKEN_S)
INTER_TOKEN_LATENCY = HistogramName("vllm:inter_token_latency_seconds", "One token to the next.", _TOKEN_GAP_S)
TIME_PER_OUTPUT_TOKEN = HistogramName(
    "vllm:request_time_per_output_token_seconds", "Mean gap between the tokens of a request.", _TOKEN_GAP_S
)
E2E_LATENCY = HistogramName("vllm:e2e_request_latency_seconds", "Arrival to the last token.", _LATENCY_S)
QUEUE_TIME = HistogramName("vllm:request_queue_time_seconds", "Arrival to admission.", _LATENCY_S)
PREFILL_TIME = HistogramName("vllm:request_prefill_time_seconds", "Admission to the first token.", _LATENCY_S)
DECODE_TIME = HistogramName("vllm:request_decode_time_seconds", "First token to the last.", _LATENCY_S)
INFERENCE_TIME = HistogramName("vllm:request_inference_time_seconds", "Admission to the last token.", _LATENCY_S)
REQUEST_PROMPT_TOKENS = HistogramName("vllm:request_prompt_tokens", "Prompt tokens of a request.", _TOKENS)
REQUEST_GENERATION_TOKENS = HistogramName("vllm:request_generation_tokens", "Tokens generated for a request.", _TOKENS)
REQUEST_MAX_GENERATION_TOKENS = HistogramName(
    "vllm:request_max_num_generation_tokens", "Most tokens generated for one answer of a request.", _TOKENS
)
REQUEST_PARAMS_MAX_TOKENS = HistogramName("vllm:request_params_max_tokens", "The max_tokens of requests.", _TOKENS)
REQUEST_PARAMS_N = HistogramName("vllm:request_params_n", "The n of requests.", _COUNT)

PROMPT_TOKENS = CounterName("vllm:prompt_tokens", "Prompt tokens processed.")
PROMPT_TOKENS_CACHED = CounterName("vllm:prompt_tokens_cached", "Prompt tokens whose KV was reused.")
GENERATION_TOKENS = CounterName("vllm:generation_tokens", "Tokens generated.")
REQUEST_SUCCESS = CounterName(
    "vllm:request_success", "Requests that ended, by reason.", "finished_reason", ("stop", "length", "abort", "error")
)
ADMISSION_REJECTIONS = CounterName("vllm:admission_rejections", "Requests refused a place, by reason.", "reason", ("queue_full",))
