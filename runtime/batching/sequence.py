"""One request on its way through the engine: its tokens, its state, its times. Knows no model and no wire format."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from runtime.batching.draft import Draft
from runtime.protocol.events import TokenLogprob
from runtime.protocol.request import SamplingParams
from runtime.text.constraints.constraint import Constraint
from runtime.text.constraints.thinking import Thinking
from runtime.text.stream import StopMatcher, TextStream


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
    requested: SamplingParams


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """What shares a turn: the answers of one request of a principal's. group: see Submit; None: number is the only answer's."""

    principal: str
    group: int | None = None
    number: int | None = None


@dataclass(slots=True)
class Undelivered:
    """The part of the answer that no event has carried yet.

    logprobs: of its tokens, except an end token; empty unless requested.
    """

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Sequence:
    """Mutable, owned by the engine's thread once added.

    tokens: int32 [prompt_len + max_tokens], of which `num_tokens` are valid: the prompt, then what was generated.
    num_computed: tokens whose KV is in the slot. max_exact: how many of those can be exact at most, see `slots`.
    principal, group: whose it is and with which others it takes its turn, see Submit; client_request: both as one value.
    adapter: whose weights are added to the model's, counted from 1; 0: none.
    constraint: what may follow, where anything limits it; thought: counts the tokens of the thought, and is the constraint or its
    outer part where it limits anything; draft: what the answer is expected to repeat.
    spans: of the answer, which tokens were computed as a chunk, first -> end; num_settled: how many were computed once, before the
    row was lost. What follows must be computed as it was then: see `scheduler.plan_jump`.
    is_announced: its caller knows that it runs, and how much of its prompt was cached; num_cached is final then.
    prompt_logprobs: of the prompt's tokens as far as they are computed, if requested.
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
    principal: str = ""
    group: int | None = None
    adapter: int = 0
    constraint: Constraint | None = None
    thought: Thinking | None = None
    in_thought: bool = False
    draft: Draft | None = None
    prompt_text: str | None = None
    shows_prompt_ids: bool = False
    num_tokens: int = 0
    num_computed: int = 0
    num_cached: int = 0
    max_exact: int = 0
    is_announced: bool = False
    slot: int = -1
    status: SequenceStatus = SequenceStatus.WAITING
    admitted_at: float | None = None
    first_token_at: float | None = None
    spans: dict[int, int] = field(default_factory=dict)
    num_settled: int = 0
    prompt_logprobs: list[TokenLogprob | None] = field(default_factory=list)
    cumulative_logprob: float = 0.0
    undelivered: Undelivered = field(default_factory=Undelivered)
    client_request: ClientRequest = field(init=False)

    def __post_init__(self) -> None:
        number = self.request if self.group is None else None
        self.client_request = ClientRequest(self.principal, self.group, number)

    def move_to(self, status: SequenceStatus) -> None:
        """The one place of transition. Raises RuntimeError for a move that the life-cycle does not have."""
        if status not in _MOVES[self.status]:
            raise RuntimeError(f"request {self.request}: no way from {self.status} to {status}")
        self.status = status

    @property
    def num_generated(self) -> int:
        return self.num_tokens - self.prompt_len

    @property
    def has_begun(self) -> bool:
        """Whether its caller knows that it runs, or has got something of it."""
        return self.is_announced or self.num_generated > 0

    @property
    def is_repeatable(self) -> bool:
        """Whether the answer must be the same each time: greedy, or drawn with a given seed."""
        return self.params.temperature == 0 or self.params.requested.seed is not None

    @property
    def reads_prompt(self) -> bool:
        """Whether log probabilities of the prompt are requested: then it is computed as a whole, and reuses no cached KV."""
        return self.params.requested.prompt_logprobs is not None

    @property
    def num_pending(self) -> int:
        """Known tokens whose KV is not computed; one between two decode steps, more after forced tokens or a preemption."""
        return self.num_tokens - self.num_computed

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

    def lose_row(self) -> None:
        """Preempted: all its KV has to be computed again, as it was the first time."""
        self.num_settled = max(self.num_settled, self.num_computed)
        self.num_computed = 0

    def append(self, token: int) -> None:
        self.tokens[self.num_tokens] = token
        self.num_tokens += 1
