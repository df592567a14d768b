"""Wire protocol between the gateway and a worker: small frozen messages, encoded as msgpack, framed by `framing`.

To the worker:    Load, Submit, Tokenize, Detokenize, Abort, SetThreads, Drain.
From the worker:  Ready, LoadFailed, Stats, Heartbeat, Tokenized, Detokenized, and one StepReport of events per engine step.
"""

from __future__ import annotations

import msgspec

from model_registry.records import Capability
from runtime.protocol.events import Chunk, Failed, Finished, Started
from runtime.protocol.request import Prompt, SamplingParams

# ---- to the worker ----


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker runs its model. num_slots: rows decoded together; threads: 0 means one per physical core.

    context_length: None means the model's own. max_token_gap_s: a prefill chunk may delay running rows by at most this much.
    prefix_cache_bytes: KV bytes kept of finished rows. kv_budget_bytes: of all rows, above which cached rows leave and then
    a sequence waits again (preemption); None means half of the machine's free memory. max_waiting: sequences queued before those of
    the requests of the principal with the most of them are refused (OverCapacity).
    tool_format, reasoning_format: names in `runtime/text/formats`; None: as the chat template shows.
    adapters: PEFT folders by name, of those that requests may name; only for the engine `onnx`, others serve none.
    """

    num_slots: int = 16
    threads: int = 0
    context_length: int | None = None
    max_token_gap_s: float = 0.1
    prefix_cache_bytes: int = 512 << 20
    kv_budget_bytes: int | None = None
    max_waiting: int = 256
    tool_format: str | None = None
    reasoning_format: str | None = None
    adapters: dict[str, str] = {}


class ProviderChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The place where a model runs: an execution provider by its onnxruntime name (`CPUExecutionProvider`), on one device.

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
    """request: unique for the life of the worker. priority: lower runs earlier (as in vLLM). deadline_s: from receipt.

    adapter: whose weights are added to the model's, by its name in `EngineOptions.adapters`; None: no adapter's.
    return_prompt_text, return_prompt_token_ids: whether Started carries them.
    principal: who shares the model with others as one (an opaque id). group: a number that the answers of one client request have
    in common and no other of the principal's requests has: they share its turn; None: a turn of its own.
    """

    request: int
    prompt: Prompt
    params: SamplingParams = SamplingParams()
    priority: int = 0
    principal: str = ""
    group: int | None = None
    deadline_s: float | None = None
    adapter: str | None = None
    return_prompt_text: bool = False
    return_prompt_token_ids: bool = False


class Tokenize(msgspec.Struct, frozen=True, kw_only=True, tag="tokenize"):
    """Answered by Tokenized, or by a Failed: what Submit would make of the prompt, without running it."""

    request: int
    prompt: Prompt


class Detokenize(msgspec.Struct, frozen=True, kw_only=True, tag="detokenize"):
    """Answered by Detokenized, or by a Failed."""

    request: int
    token_ids: list[int]


class Abort(msgspec.Struct, frozen=True, kw_only=True, tag="abort"):
    request: int


class SetThreads(msgspec.Struct, frozen=True, kw_only=True, tag="set_threads"):
    """Compute with so many threads from the next step on. Only to an engine whose `ModelInfo.can_set_threads`."""

    num_threads: int


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag="drain"):
    """Finish what was submitted, then exit."""


ToWorker = Load | Submit | Tokenize | Detokenize | Abort | SetThreads | Drain


# ---- from the worker ----


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a loaded model is. resident_bytes: of the whole worker, after the load.

    capabilities: what requests may need of it, as it is loaded by this engine.
    kv_bytes_per_token: both K and V, all layers; 0 of a model without a KV cache.
    batches: whether several sequences share a step.
    chat_template_error: why the model's chat template does not compile; None where it does, or there is none.
    silent_steps: a step may keep the worker's other threads from running, that of the heartbeats among them.
    tool_format, reasoning_format: how it writes tool calls and thoughts, by names in `runtime/text/formats`; None: not at all.
    adapters: that requests may name.
    """

    engine: str
    provider: str
    architecture: str
    context_length: int
    vocab_size: int
    num_slots: int
    threads: int
    capabilities: frozenset[Capability]
    kv_bytes_per_token: int = 0
    chat_template_error: str | None = None
    load_s: float
    resident_bytes: int
    pid: int
    can_set_threads: bool = False
    batches: bool = True
    silent_steps: bool = False
    tool_format: str | None = None
    reasoning_format: str | None = None
    adapters: tuple[str, ...] = ()


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    info: ModelInfo


class LoadFailed(msgspec.Struct, frozen=True, kw_only=True, tag="load_failed"):
    message: str


class Tokenized(msgspec.Struct, frozen=True, kw_only=True, tag="tokenized"):
    """tokens: the bytes of each. context_length: the model's, prompt and answer together."""

    request: int
    token_ids: list[int]
    tokens: list[bytes]
    context_length: int


class Detokenized(msgspec.Struct, frozen=True, kw_only=True, tag="detokenized"):
    request: int
    text: str


class StepReport(msgspec.Struct, frozen=True, kw_only=True, tag="step", omit_defaults=True):
    started: list[Started] = []
    chunks: list[Chunk] = []
    finished: list[Finished] = []
    failed: list[Failed] = []


class Stats(msgspec.Struct, frozen=True, kw_only=True, tag="stats"):
    """A snapshot, sent when something changed, at most every 0.2 s and when all is done.

    `*_total` count since the worker's start, prefixes in tokens.

    kv_usage: KV bytes of running rows / the most that they may take. kv_bytes: KV memory backed by pages, running and cached rows.
    threads: what the engine computes with now. cpu_s: processor time of the worker since its start, all threads together; what
    else is in the snapshot decides whether it changed.
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
    cpu_s: float = 0.0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="heartbeat", omit_defaults=True):
    """Sent every second by a thread that does nothing else. step_s: how long the step in progress has taken; 0 between steps.

    preparing: the request that is prepared now, or is next in line; None: all are prepared. preparing_s: for how long it has been.
    """

    step_s: float
    preparing: int | None = None
    preparing_s: float = 0.0


FromWorker = Ready | LoadFailed | StepReport | Stats | Heartbeat | Tokenized | Detokenized
