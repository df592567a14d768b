"""What becomes of a request, event by event: Started, Chunk..., then Finished or Failed. Frozen; knows no process."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from runtime.protocol.errors import FailureKind, Field


class FinishReason(StrEnum):
    """Why a sequence ended. `STOP`: an end-of-sequence token or a stop string; `LENGTH`: max_tokens or the context is full."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of tokens. cached_tokens: of the prompt, those whose KV was reused. completion_tokens: also the last.

    reasoning_tokens: of the completion, those of the thought, its tags among them. accepted, rejected_prediction_tokens: of a
    prediction, those that were verified and became, or did not become, part of the completion.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds. queue: receipt to admission; prefill: admission to the first token; decode: first token to the last."""

    queue_s: float
    prefill_s: float
    decode_s: float


class Alternative(msgspec.Struct, frozen=True, array_like=True):
    """A token that could stand at a place. token: its bytes, as `tokenizer.token_bytes` gives them; not always whole characters."""

    token_id: int
    token: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """The token that stands at a place. logprob: natural, of the model's own distribution. top: the likeliest, best first."""

    token_id: int
    token: bytes
    logprob: float
    top: list[Alternative]


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A sequence was admitted to a slot; with prompt_logprobs: its prompt was computed.

    in_thought: the prompt ends within a thought, which the answer continues.
    prompt_text, prompt_token_ids, prompt_logprobs: only if requested. The first token of a prompt has no log probability: None.
    """

    request: int
    prompt_tokens: int
    cached_tokens: int
    in_thought: bool = False
    prompt_text: str | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[TokenLogprob | None] | None = None


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """New text of one row; ends at a character border and never inside a possible stop string. `text` may be empty.

    logprobs: of each token in token_ids, if requested.
    """

    request: int
    text: str
    token_ids: list[int]
    logprobs: list[TokenLogprob] | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The last event of a request. text, token_ids, logprobs: what no Chunk has carried yet. stop: what matched, if requested.

    An end-of-sequence or stop token is among the token_ids, but not among the logprobs.
    cumulative_logprob: the sum over the answer, if logprobs were requested.
    """

    request: int
    reason: FinishReason
    usage: Usage
    timings: Timings
    text: str = ""
    token_ids: list[int] = []
    stop: str | int | None = None
    logprobs: list[TokenLogprob] | None = None
    cumulative_logprob: float | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The last event of a request that could not be served."""

    request: int
    kind: FailureKind
    message: str
    field: Field | None = None
    code: str | None = None
    retry_after_s: float | None = None


Event = Started | Chunk | Finished | Failed
