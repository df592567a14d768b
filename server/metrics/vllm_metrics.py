"""The metrics under `vllm:`, which vLLM's dashboards query: names, meanings, buckets. Data; seconds and tokens."""

from __future__ import annotations

from server.metrics.declaration import counter, gauge, histogram

_LATENCY_S = (
    *(0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60),
    *(120, 240, 480, 960, 1920, 7680),
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

TIME_TO_FIRST_TOKEN = histogram("vllm:time_to_first_token_seconds", "Time from arrival to the first token.", _FIRST_TOKEN_S)
INTER_TOKEN_LATENCY = histogram("vllm:inter_token_latency_seconds", "Time from one token to the next.", _TOKEN_GAP_S)
TIME_PER_OUTPUT_TOKEN = histogram(
    "vllm:request_time_per_output_token_seconds", "Mean time between the tokens of a request.", _TOKEN_GAP_S
)
E2E_LATENCY = histogram("vllm:e2e_request_latency_seconds", "Time from arrival to the last token.", _LATENCY_S)
QUEUE_TIME = histogram("vllm:request_queue_time_seconds", "Time from arrival to admission into a slot.", _LATENCY_S)
PREFILL_TIME = histogram("vllm:request_prefill_time_seconds", "Time from admission to the first token.", _LATENCY_S)
DECODE_TIME = histogram("vllm:request_decode_time_seconds", "Time from the first token to the last.", _LATENCY_S)
INFERENCE_TIME = histogram("vllm:request_inference_time_seconds", "Time from admission to the last token.", _LATENCY_S)
REQUEST_PROMPT_TOKENS = histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", _TOKENS)
REQUEST_GENERATION_TOKENS = histogram("vllm:request_generation_tokens", "Tokens generated for a request.", _TOKENS)
REQUEST_MAX_GENERATION_TOKENS = histogram(
    "vllm:request_max_num_generation_tokens", "Most tokens generated for one answer of a request.", _TOKENS
)
REQUEST_PARAMS_MAX_TOKENS = histogram("vllm:request_params_max_tokens", "Values of max_tokens in requests.", _TOKENS)
REQUEST_PARAMS_N = histogram("vllm:request_params_n", "Values of n in requests.", _COUNT)
HISTOGRAMS = (
    *(TIME_TO_FIRST_TOKEN, INTER_TOKEN_LATENCY, TIME_PER_OUTPUT_TOKEN, E2E_LATENCY),
    *(QUEUE_TIME, PREFILL_TIME, DECODE_TIME, INFERENCE_TIME),
    *(REQUEST_PROMPT_TOKENS, REQUEST_GENERATION_TOKENS, REQUEST_MAX_GENERATION_TOKENS),
    *(REQUEST_PARAMS_MAX_TOKENS, REQUEST_PARAMS_N),
)

PROMPT_TOKENS = counter("vllm:prompt_tokens_total", "Prompt tokens processed, those with reused KV included.")
PROMPT_TOKENS_CACHED = counter("vllm:prompt_tokens_cached_total", "Prompt tokens whose KV was reused.")
GENERATION_TOKENS = counter("vllm:generation_tokens_total", "Tokens generated.")
REQUEST_SUCCESS = counter(
    "vllm:request_success_total",
    "Requests that ended, by reason: stop and length are answers, abort is a client that left, error is a failure.",
    "finished_reason",
    values=("stop", "length", "abort", "error"),
)
ADMISSION_REJECTIONS = counter(
    "vllm:admission_rejections_total",
    "Requests that found no place in the queue, or lost it, and were answered 429.",
    "reason",
    values=("queue_full",),
)
COUNTERS = (PROMPT_TOKENS, PROMPT_TOKENS_CACHED, GENERATION_TOKENS, REQUEST_SUCCESS, ADMISSION_REJECTIONS)

# Read from a worker's statistics. The counters start again with the worker.
REQUESTS_RUNNING = gauge("vllm:num_requests_running", "Sequences in slots.")
REQUESTS_WAITING = gauge("vllm:num_requests_waiting", "Sequences queued for a slot.")
REQUESTS_WAITING_BY_REASON = gauge("vllm:num_requests_waiting_by_reason", "Sequences queued, by reason: capacity.", "reason")
KV_CACHE_USAGE = gauge("vllm:kv_cache_usage_perc", "KV memory of running sequences over the most that it may be, 0 to 1.")
PREFIX_CACHE_QUERIES = counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.")
PREFIX_CACHE_HITS = counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.")
PREEMPTIONS = counter("vllm:num_preemptions_total", "Running sequences that lost their slot to KV pressure and were queued again.")
CACHE_CONFIG = gauge(
    "vllm:cache_config_info",
    "Always 1; the labels describe the KV cache as blocks of one token.",
    *("block_size", "num_gpu_blocks", "enable_prefix_caching"),
)
OF_WORKERS = (
    *(REQUESTS_RUNNING, REQUESTS_WAITING, REQUESTS_WAITING_BY_REASON, KV_CACHE_USAGE),
    *(PREFIX_CACHE_QUERIES, PREFIX_CACHE_HITS, PREEMPTIONS, CACHE_CONFIG),
)
