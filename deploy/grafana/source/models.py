"""Models and engine: where time goes, how full slots and KV memory are, what is loaded and why it left."""

from __future__ import annotations

from deploy.grafana.source.dashboard import DAEMONS, OF_MODELS, Dashboard, Row, events
from deploy.grafana.source.panel import heatmap, lines, percentiles

_RATE = "[$__rate_interval]"
_VERSION = "{{model_name}}:{{engine}}"


def _rate(counter: str, by: str = "", where: str = OF_MODELS) -> str:
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({counter}{{{where}}}{_RATE}))"


def _increase(counter: str, by: str) -> str:
    return f"sum by ({by}) (increase({counter}{{{OF_MODELS}}}{_RATE}))"


def _mean(histogram: str) -> str:
    return f"{_rate(histogram + '_sum')} / ({_rate(histogram + '_count')} > 0)"


_TRAFFIC = Row(
    "Traffic",
    (
        lines(
            "Finished requests by reason",
            "stop and length are answers; abort: the client left; error: the engine failed, see the log.",
            "reqps",
            (_rate("vllm:request_success_total", "finished_reason"), "{{finished_reason}}"),
            stacked=True,
        ),
        lines(
            "Tokens",
            "Prompt tokens include those whose KV was reused, which cost next to nothing.",
            "suffix: tok/s",
            (_rate("vllm:generation_tokens_total"), "generated"),
            (_rate("vllm:prompt_tokens_total"), "prompt"),
            (_rate("vllm:prompt_tokens_cached_total"), "prompt, reused"),
        ),
        lines(
            "Rejected requests (429)",
            "Requests that found no place in the queue, or lost it to a principal with fewer requests.",
            "reqps",
            (_rate("vllm:admission_rejections_total", "model_name, reason"), "{{model_name}} {{reason}}"),
        ),
    ),
)
_LATENCY = Row(
    "Latency",
    (
        heatmap(
            "Time to first token",
            "How many requests had their first token after how long. Two bands: cached and new prompts, or a queue at times.",
            "vllm:time_to_first_token_seconds",
            OF_MODELS,
        ),
        heatmap(
            "Inter-token latency",
            "How many tokens came after which gap. A second band above the first shows prompts that are processed between tokens.",
            "vllm:inter_token_latency_seconds",
            OF_MODELS,
        ),
        heatmap(
            "Whole requests",
            "How many requests took how long from arrival to the last token.",
            "vllm:e2e_request_latency_seconds",
            OF_MODELS,
        ),
        percentiles(
            "Time to first token, percentiles",
            "Arrival to the first token.",
            "vllm:time_to_first_token_seconds",
            OF_MODELS,
        ),
        percentiles(
            "Inter-token latency, percentiles",
            "One token to the next: below 0.1 s a text reads fluently.",
            "vllm:inter_token_latency_seconds",
            OF_MODELS,
        ),
        percentiles("Whole requests, percentiles", "Arrival to the last token.", "vllm:e2e_request_latency_seconds", OF_MODELS),
        lines(
            "Where a request spends its time (mean)",
            "Queue: waits for a slot. Prefill: its prompt is processed. Decode: its tokens are generated.",
            "s",
            (_mean("vllm:request_queue_time_seconds"), "queue"),
            (_mean("vllm:request_prefill_time_seconds"), "prefill"),
            (_mean("vllm:request_decode_time_seconds"), "decode"),
            stacked=True,
        ),
        percentiles(
            "Prompt length", "Tokens of a prompt, with the chat template's.", "vllm:request_prompt_tokens", OF_MODELS, "suffix: tok"
        ),
        percentiles("Answer length", "Tokens of an answer.", "vllm:request_generation_tokens", OF_MODELS, "suffix: tok"),
    ),
)
_ENGINE = Row(
    "Engine",
    (
        lines(
            "Queue",
            "Sequences in slots and waiting, against the slots there are. What is above the slots waits.",
            "short",
            (f"sum by (model_name, engine) (vllm:num_requests_running{{{OF_MODELS}}})", f"{_VERSION} running"),
            (f"sum by (model_name, engine) (vllm:num_requests_waiting{{{OF_MODELS}}})", f"{_VERSION} waiting"),
            (f"sum by (model_name, engine) (slmops_model_slots{{{OF_MODELS}}})", f"{_VERSION} slots"),
        ),
        lines(
            "Tokens per step",
            "The batch in effect: tokens generated over steps of the engine. Near 1, requests hardly overlap.",
            "short",
            (
                f"{_rate('vllm:generation_tokens_total', 'model_name, engine')} / "
                f"({_rate('slmops_engine_steps_total', 'model_name, engine')} > 0)",
                _VERSION,
            ),
        ),
        lines(
            "Steps",
            "Steps of the engine a second; each advances all running sequences.",
            "suffix: steps/s",
            (_rate("slmops_engine_steps_total", "model_name, engine"), _VERSION),
        ),
        lines(
            "KV memory in use",
            "KV memory of running sequences over the most that it may be. Near 1, sequences are preempted.",
            "percentunit",
            (f"max by (model_name, engine) (vllm:kv_cache_usage_perc{{{OF_MODELS}}})", _VERSION),
            thresholds=((0.9, "bad"),),
            most=1,
        ),
        lines(
            "Prefix cache hits",
            "Part of the prompt tokens whose KV was found, so that they were not computed again.",
            "percentunit",
            (
                f"{_rate('vllm:prefix_cache_hits_total', 'model_name, engine')} / "
                f"({_rate('vllm:prefix_cache_queries_total', 'model_name, engine')} > 0)",
                _VERSION,
            ),
            most=1,
        ),
        lines(
            "Preemptions",
            "Running sequences that were queued again because the KV memory was full. Each costs its prompt a second time.",
            "ops",
            (_rate("vllm:num_preemptions_total", "model_name, engine"), _VERSION),
        ),
        lines(
            "Memory by model",
            "Resident memory of the workers, and what of it is KV memory.",
            "bytes",
            (f"sum by (model_name, engine) (slmops_model_resident_bytes{{{OF_MODELS}}})", f"{_VERSION} workers"),
            (f"sum by (model_name, engine) (slmops_model_kv_bytes{{{OF_MODELS}}})", f"{_VERSION} KV"),
        ),
        lines(
            "Memory charged",
            "What the memory budget counts for each model: estimated before a load, measured afterwards.",
            "bytes",
            (f"sum by (model_name, engine) (slmops_model_charged_bytes{{{OF_MODELS}}})", _VERSION),
            stacked=True,
        ),
        lines(
            "CPU and threads",
            "Cores that the workers use, against the threads that they compute with.",
            "suffix: cores",
            (_rate("slmops_model_cpu_seconds_total", "model_name, engine"), f"{_VERSION} in use"),
            (f"sum by (model_name, engine) (slmops_model_threads{{{OF_MODELS}}})", f"{_VERSION} threads"),
        ),
    ),
)
_LOAD_TIMES = f"sum by (le, model_name) (rate(slmops_model_load_seconds_bucket{{{OF_MODELS}}}[1h]))"
_LIFECYCLE = Row(
    "Loads and workers",
    (
        lines(
            "Loads and unloads",
            "Expired: its keep-alive ended. Evicted: another model needed the room. Asked: by an operator. Replaced: by a reload.",
            "short",
            (f"sum(increase(slmops_model_loads_total{{{OF_MODELS}}}{_RATE}))", "loads"),
            (_increase("slmops_model_unloads_total", "reason"), "{{reason}}"),
        ),
        lines(
            "Duration of loads",
            "From the start of a worker until the model answers, of those loaded in the last hour.",
            "s",
            (
                f"histogram_quantile(0.95, {_LOAD_TIMES})",
                "{{model_name}} p95",
            ),
            without_data="no loads",
        ),
        lines(
            "Loads waiting for room",
            "Loads that wait because the models in memory are busy or pinned.",
            "short",
            (f"slmops_model_loads_waiting{{{DAEMONS}}}", "{{instance}}"),
        ),
        lines(
            "Deaths, restarts and failed loads",
            "Workers that ended by themselves or hung, workers that were replaced, loads that failed on every provider.",
            "short",
            (_increase("slmops_worker_deaths_total", "model_name, engine"), f"{_VERSION} deaths"),
            (_increase("slmops_worker_restarts_total", "model_name, engine"), f"{_VERSION} restarts"),
            (_increase("slmops_model_load_failures_total", "model_name, engine"), f"{_VERSION} failed loads"),
        ),
        lines(
            "Broken models",
            "1 while a model is not tried because it failed five times in a row; its requests get 503.",
            "short",
            (f"max by (model_name, engine) (slmops_model_broken{{{OF_MODELS}}})", _VERSION),
            thresholds=((1, "bad"),),
            most=1,
        ),
        lines(
            "Provider fallbacks",
            "Execution providers that could not load a model, so that the next one was tried. Empty while none did.",
            "short",
            (events("slmops_provider_fallbacks_total", "model_name, provider", OF_MODELS), "{{model_name}} {{provider}}"),
            without_data="none",
        ),
        lines(
            "Workers",
            "Workers of each loaded model. A model that is not loaded has no line.",
            "short",
            (f"sum by (model_name, engine) (slmops_model_replicas{{{OF_MODELS}}})", _VERSION),
            stacked=True,
        ),
        lines(
            "Requests that hold a model",
            "Requests that keep a model in memory: while there are any, it is neither unloaded nor evicted.",
            "short",
            (f"sum by (model_name, engine) (slmops_model_leases{{{OF_MODELS}}})", _VERSION),
        ),
    ),
)

MODELS = Dashboard(
    "slmops-models",
    "slmops: models and engine",
    "Latency, queue, batch, KV memory, caches, loads and workers, by model.",
    (_TRAFFIC, _LATENCY, _ENGINE, _LIFECYCLE),
)
