"""One request on its way through the engine: its tokens, its state, its times. Knows no model and no wire format."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from runtime.batching.stop import StopMatcher
from runtime.request import SamplingParams
from runtime.text_stream import TextStream


class SequenceStatus(StrEnum):
    """WAITING: has no slot. PREFILL: prompt partly computed. DECODE: one token a step. FINISHED: has left, for good."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    FINISHED = "finished"


_MOVES = {
    SequenceStatus.WAITING: {SequenceStatus.PREFILL, SequenceStatus.FINISHED},
    SequenceStatus.PREFILL: {SequenceStatus.DECODE, SequenceStatus.WAITING, SequenceStatus.FINISHED},
    SequenceStatus.DECODE: {SequenceStatus.WAITING, SequenceStatus.FINISHED},
    SequenceStatus.FINISHED: set(),
}


@dataclass(frozen=True, slots=True)
class ResolvedParams:
    """SamplingParams with every default filled in, ready for arrays. top_k 0 is off; `max_tokens` is within the context."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    max_tokens: int
    asked: SamplingParams


@dataclass(slots=True, eq=False)
class Sequence:
    """Mutable, owned by the engine's thread once added.

    tokens: int32 [prompt_len + max_tokens], of which `num_tokens` are valid: the prompt, then what was generated.
    num_computed: tokens whose KV is in the slot. max_exact: how many of those can be exact at most, see `slots`.
    is_announced: its caller knows that it runs, and how much of its prompt was cached; num_cached is final then.
    Times are seconds of the engine's clock; first_token_at is None before it.
    """

    request: int
    params: ResolvedParams
    tokens: NDArray[np.int32]
    prompt_len: int
    text: TextStream
    stop: StopMatcher
    rng: np.random.Generator
    priority: int
    arrived_at: float
    deadline_at: float | None
    prompt_text: str | None = None
    num_tokens: int = 0
    num_computed: int = 0
    num_cached: int = 0
    max_exact: int = 0
    is_announced: bool = False
    slot: int = -1
    status: SequenceStatus = SequenceStatus.WAITING
    admitted_at: float | None = None
    first_token_at: float | None = None
    undelivered: list[int] = field(default_factory=list)

    def move_to(self, status: SequenceStatus) -> None:
        """The one place of transition. Raises RuntimeError for a move that the life-cycle does not have."""
        if status not in _MOVES[self.status]:
            raise RuntimeError(f"request {self.request}: no way from {self.status} to {status}")
        self.status = status

    @property
    def num_generated(self) -> int:
        return self.num_tokens - self.prompt_len

    @property
    def is_repeatable(self) -> bool:
        """Whether the answer must be the same each time: greedy, or drawn with a given seed."""
        return self.params.temperature == 0 or self.params.asked.seed is not None

    @property
    def num_exact(self) -> int:
        return min(self.num_computed, self.max_exact)

    @property
    def next_input(self) -> int:
        """The first token whose KV is not computed yet."""
        return int(self.tokens[self.num_computed])

    @property
    def prompt(self) -> NDArray[np.int32]:
        return self.tokens[: self.prompt_len]

    @property
    def known(self) -> NDArray[np.int32]:
        """Valid tokens, prompt and output, [num_tokens]."""
        return self.tokens[: self.num_tokens]

    @property
    def computed(self) -> NDArray[np.int32]:
        """Tokens whose KV the slot holds, [num_computed]."""
        return self.tokens[: self.num_computed]

    def append(self, token: int) -> None:
        self.tokens[self.num_tokens] = token
        self.num_tokens += 1
