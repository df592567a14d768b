"""Everything a worker is told or tells: small frozen messages, encoded as msgpack, framed by `runtime/framing.py`.

To the worker:    Load, Submit, Abort, SetThreads, Drain.
From the worker:  Ready, LoadFailed, Stats, Heartbeat, and one StepReport per engine step: Started, Chunk, Finished, Failed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from runtime.errors import FailureKind


class FinishReason(StrEnum):
    """Why a sequence ended. `STOP`: an end-of-sequence token or a stop string; `LENGTH`: max_tokens or the context is full."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the next token is chosen. None means: the model's own default (generation config), else the neutral value.

    temperature: 0 is exact greedy. top_k: 0 or -1 is off. top_p in (0, 1]. min_p in [0, 1]. typical_p in (0, 1].
    repetition_penalty > 0 over prompt and output (CTRL, Keskar et al. 2019); presence, frequency in [-2, 2] over the output.
    logit_bias: token id -> bias in [-100, 100]. seed: 64-bit. stop: texts, up to 16. max_tokens: None means up to the context.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True


class ChatPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="chat"):
    """Messages as the model's chat template takes them: dicts with `role`, `content` and the template's own extras."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    template_kwargs: dict[str, Any] = {}
    add_generation_prompt: bool = True
    continue_final_message: bool = False


class TextPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    text: str
    add_special_tokens: bool = True


class TokensPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="tokens"):
    token_ids: list[int]


Prompt = ChatPrompt | TextPrompt | TokensPrompt


# ---- to the worker ----


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker runs its model. num_slots: rows decoded together; threads: 0 means one per physical core.

    context_length: None means the model's own. max_token_gap_s: a prefill chunk may delay running rows by at most this much.
    prefix_cache_bytes: KV bytes kept of finished rows. kv_budget_bytes: of all rows, above which cached rows leave and then
    the newest sequence waits again (preemption); None means half of the machine's free memory. max_waiting: sequences queued before
    new ones are shed (OverCapacity).
    """

    num_slots: int = 16
    threads: int = 0
    context_length: int | None = None
    max_token_gap_s: float = 0.1
    prefix_cache_bytes: int = 512 << 20
    kv_budget_bytes: int | None = None
    max_waiting: int = 256


class ProviderChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model runs: an execution provider by its onnxruntime name (`CPUExecutionProvider`), on one device.

    device_index: among the provider's devices. library: a plugin provider's shared library, to be registered before the load.
    options: the provider's own, e.g. {"device_id": "0"}.
    """

    name: str = "CPUExecutionProvider"
    device_index: int = 0
    library: str | None = None
    options: dict[str, str] = {}


class Load(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """The first message. engine: `onnx`, `genai`, `foundry` or `fake`; folder: the variant's folder (for `fake`: may be empty)."""

    engine: str
    folder: str
    options: EngineOptions
    provider: ProviderChoice = ProviderChoice()


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag="submit"):
    """request: unique for the life of the worker. priority: lower runs earlier (as in vLLM). deadline_s: from receipt."""

    request: int
    prompt: Prompt
    params: SamplingParams = SamplingParams()
    priority: int = 0
    deadline_s: float | None = None
    return_prompt_text: bool = False


class Abort(msgspec.Struct, frozen=True, kw_only=True, tag="abort"):
    request: int


class SetThreads(msgspec.Struct, frozen=True, kw_only=True, tag="set_threads"):
    """Compute with so many threads from the next step on. Only to an engine whose `ModelInfo.can_set_threads`."""

    num_threads: int


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag="drain"):
    """Finish what was submitted, then exit."""


ToWorker = Load | Submit | Abort | SetThreads | Drain


# ---- from the worker ----


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a loaded model is. kv_bytes_per_token: both K and V, all layers. resident_bytes: of the whole worker, after the load.

    batches: whether several sequences share a step.
    silent_steps: a step may keep the worker's other threads from running, that of the heartbeats among them.
    """

    engine: str
    provider: str
    architecture: str
    context_length: int
    vocab_size: int
    num_slots: int
    threads: int
    kv_bytes_per_token: int
    has_chat_template: bool
    load_s: float
    resident_bytes: int
    pid: int
    can_set_threads: bool = False
    batches: bool = True
    silent_steps: bool = False


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    info: ModelInfo


class LoadFailed(msgspec.Struct, frozen=True, kw_only=True, tag="load_failed"):
    message: str


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of tokens. cached_tokens: of the prompt, those whose KV was reused. completion_tokens: also the last."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds. queue: receipt to admission; prefill: admission to the first token; decode: first token to the last."""

    queue_s: float
    prefill_s: float
    decode_s: float


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A sequence was admitted to a slot. prompt_text: only if asked for."""

    request: int
    prompt_tokens: int
    cached_tokens: int
    prompt_text: str | None = None


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """New text of one row; ends at a character border and never inside a possible stop string. `text` may be empty."""

    request: int
    text: str
    token_ids: list[int]


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The last event of a request. text, token_ids: what no Chunk has carried yet. stop: what matched, if asked for."""

    request: int
    reason: FinishReason
    usage: Usage
    timings: Timings
    text: str = ""
    token_ids: list[int] = []
    stop: str | int | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The last event of a request that could not be served."""

    request: int
    kind: FailureKind
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None


class StepReport(msgspec.Struct, frozen=True, kw_only=True, tag="step", omit_defaults=True):
    started: list[Started] = []
    chunks: list[Chunk] = []
    finished: list[Finished] = []
    failed: list[Failed] = []


class Stats(msgspec.Struct, frozen=True, kw_only=True, tag="stats"):
    """A snapshot, sent when something changed, at most every 0.2 s and when all is done.

    `*_total` count since the worker's start, prefixes in tokens.

    kv_usage: KV bytes of running rows / the most that they may take. kv_bytes: KV memory backed by pages, running and cached rows.
    threads: what the engine computes with now.
    """

    num_running: int
    num_waiting: int
    kv_usage: float
    kv_bytes: int
    prefix_queries_total: int
    prefix_hits_total: int
    preemptions_total: int
    steps_total: int
    resident_bytes: int
    threads: int = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="heartbeat"):
    """Sent every second by a thread that does nothing else. step_s: how long the step in progress has taken; 0 between steps."""

    step_s: float


FromWorker = Ready | LoadFailed | StepReport | Stats | Heartbeat
Event = Started | Chunk | Finished | Failed
