"""One onnxruntime-genai generator per running sequence: the model computes scores, we choose. Imports no vendor.

A generator holds one sequence's KV, of a capacity that is fixed and filled when it is made. Generators are stepped in turn, each by
one token: two at a time would compute no faster, since each already uses every thread, and in turn none waits for another's answer.

The sampler is our own, so that seeds, penalties and biases mean here what they mean in our engine. The chosen token goes back in by
`append_tokens`; where a device cannot append, by scores that leave only that token to genai's own greedy search.

A finished generator is kept for the prefix that it holds, which `rewind_to` brings back. It cannot be copied, so requests that run
at the same time share no prefix. Recurrent models cannot rewind to any length: when one refuses, none is kept any more.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.batching.engine import LARGEST_CHUNK, SMALLEST_CHUNK
from runtime.batching.sampler import Sampler, token_logprob
from runtime.batching.scheduler import StepCosts, StepPlan, prefill_budget
from runtime.batching.sequence import Sequence
from runtime.batching.slots import MIN_COMPUTED_TOKENS, best_match
from runtime.engines.genai.engine import Decoded, refuse_beyond
from runtime.protocol.errors import Field, InvalidRequest

SMALLEST_CAPACITY = 512
_EXCLUDED = -1e9


class Generator(Protocol):
    """The part of `onnxruntime_genai.Generator` that is used."""

    def append_tokens(self, tokens: NDArray[np.int32]) -> None: ...

    def get_logits(self) -> NDArray[np.float32]:
        """Scores after the last token, [1, 1, vocab]; a copy."""
        ...

    def set_logits(self, logits: NDArray[np.float32]) -> None: ...

    def generate_next_token(self) -> None: ...

    def rewind_to(self, length: int) -> None: ...


@dataclass(slots=True)
class _Held:
    """A generator, and what it holds. tokens: int32, of a generator that is kept; num_exact as in `slots`."""

    generator: Generator
    capacity: int
    tokens: NDArray[np.int32]
    num_exact: int = 0


@dataclass(frozen=True, slots=True)
class GeneratorLimits:
    """context: tokens of a sequence at most. kv_budget_bytes: of running generators; prefix_cache_bytes: of kept ones.

    can_append: whether the device can compute more tokens on top of those that a generator holds.
    max_token_gap_s: as in EngineOptions.
    """

    context: int
    kv_bytes_per_token: int
    kv_budget_bytes: int
    prefix_cache_bytes: int
    max_token_gap_s: float
    can_append: bool = True


class GeneratorDecoder:
    """create: makes a generator for so many tokens. token_bytes: what each token stands for. Implements `engine.Decoder`."""

    can_pause = True  # its generator waits with it

    def __init__(
        self,
        create: Callable[[int], Generator],
        sampler: Sampler,
        token_bytes: Callable[[int], bytes],
        limits: GeneratorLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._create: Callable[[int], Generator] | None = create
        self._sampler = sampler
        self._token_bytes = token_bytes
        self._limits = limits
        self._clock = clock
        self._costs = StepCosts()
        self._running: dict[int, _Held] = {}
        self._kept: dict[int, _Held] = {}  # by a number that grows: the least recently used first
        self._num_kept = 0
        self._can_rewind = limits.can_append
        self.prefix_queries = 0
        self.prefix_hits = 0

    def check(self, sequence: Sequence) -> None:
        refuse_beyond(sequence, (Field.PROMPT_LOGPROBS, Field.PREDICTION))
        if sequence.params.requested.ignore_eos and not self._limits.can_append:
            raise InvalidRequest(
                f"This model's device cannot go on after an end-of-sequence token. Leave {Field.IGNORE_EOS.quoted} out.",
                field=Field.IGNORE_EOS,
            )

    def can_start(self, sequence: Sequence) -> bool:
        needed = capacity_for(len(sequence.tokens), self._limits.context) * self._limits.kv_bytes_per_token
        return not self._running or self.running_bytes() + needed <= self._limits.kv_budget_bytes

    def start(self, sequence: Sequence) -> None:
        self.prefix_queries += sequence.prompt_len
        sequence.max_exact = sequence.prompt_len
        held = self._continue(sequence) or self._recycle(len(sequence.tokens))
        if held is None:
            assert self._create is not None
            capacity = capacity_for(len(sequence.tokens), self._limits.context)
            self._make_room(self._limits.kv_budget_bytes - self.running_bytes() - capacity * self._limits.kv_bytes_per_token)
            held = _Held(self._create(capacity), capacity, sequence.known)
        self._running[sequence.request] = held
        sequence.num_cached = sequence.num_computed
        self.prefix_hits += sequence.num_cached

    def _continue(self, sequence: Sequence) -> _Held | None:
        """The kept generator that holds most of the prompt, rewound to it. Its last tokens are recomputed, as prompt."""
        repeatable = sequence.is_repeatable
        fitting = ((key, held) for key, held in self._kept.items() if held.capacity >= len(sequence.tokens))
        reusable = ((key, held.tokens[: held.num_exact] if repeatable else held.tokens) for key, held in fitting)
        match = best_match(sequence.prompt[:-MIN_COMPUTED_TOKENS], reusable)
        if match is None:
            return None
        held = self._kept.pop(match.row)
        if not self._rewind(held, match.num_tokens):
            return None
        if match.num_tokens > held.num_exact:
            sequence.max_exact = held.num_exact
        sequence.num_computed = match.num_tokens
        return held

    def _recycle(self, num_tokens: int) -> _Held | None:
        """The least recently used of those that fit, emptied, where one more could not be kept beside the others anyway."""
        needed = capacity_for(num_tokens, self._limits.context) * self._limits.kv_bytes_per_token
        if self.cached_bytes() + needed <= self._limits.prefix_cache_bytes:
            return None
        key = next((key for key, held in self._kept.items() if held.capacity >= num_tokens), None)
        held = None if key is None else self._kept.pop(key)
        return held if held is not None and self._rewind(held, 0) else None

    def _rewind(self, held: _Held, num_tokens: int) -> bool:
        try:
            held.generator.rewind_to(num_tokens)
        except RuntimeError:  # genai's only sign that a model's state cannot be cut
            self._can_rewind = False
            self._kept.clear()
            return False
        return True

    def prefill_budget(self, num_decoding: int) -> int:
        """A device that cannot append computes whole prompts."""
        if not self._limits.can_append:
            return sys.maxsize
        return prefill_budget(
            gap_s=self._limits.max_token_gap_s,
            decode_s=self._costs.decode_s,
            token_s=self._costs.token_s,
            num_decoding=num_decoding,
            smallest=SMALLEST_CHUNK,
            largest=LARGEST_CHUNK,
        )

    def step(self, plan: StepPlan) -> list[Decoded]:
        decoded = []
        for chunk in plan.prefill:
            began = self._clock()
            decoded.append(self._advance(chunk.sequence, chunk.num_tokens))
            self._costs.saw_prefill(self._clock() - began, chunk.num_tokens)
        if plan.decode:
            began = self._clock()
            decoded += [self._advance(sequence, self._num_next(sequence)) for sequence in plan.decode]
            self._costs.saw_decode(self._clock() - began)
        return [one for one in decoded if one is not None]

    def _num_next(self, sequence: Sequence) -> int:
        """The number of a decoding sequence's next tokens: one, or all that a constraint has forced."""
        return sequence.num_pending if self._limits.can_append else 1

    def _advance(self, sequence: Sequence, num_tokens: int) -> Decoded | None:
        """Computes so many more of its known tokens, and chooses the next when all are computed."""
        generator = self._running[sequence.request].generator
        tokens = sequence.tokens[sequence.num_computed : sequence.num_computed + num_tokens]
        try:
            if self._limits.can_append or sequence.num_computed == 0:
                generator.append_tokens(tokens)
            else:
                _steer(generator, int(tokens[0]))
            sequence.num_computed += num_tokens
            if sequence.num_computed < sequence.num_tokens:
                return None
            logits = generator.get_logits()
        except Exception as error:  # genai raises RuntimeError for everything, from a full device to a bad graph
            return Decoded(sequence, error=error)
        return self._choose(sequence, logits.reshape(1, logits.shape[-1]))

    def _choose(self, sequence: Sequence, logits: NDArray[np.float32]) -> Decoded:
        num_top = sequence.params.requested.logprobs
        raw = None if num_top is None else logits[0].copy()
        choice = self._sampler.sample(logits, [sequence])[0]
        if not isinstance(choice, int):
            return Decoded(sequence, error=choice)
        if raw is None or num_top is None:
            return Decoded(sequence, choice)
        return Decoded(sequence, choice, logprob=token_logprob(raw, choice, num_top, self._token_bytes))

    def stop(self, sequence: Sequence) -> None:
        """Keeps its generator, when there is something to reuse and room for it."""
        held = self._running.pop(sequence.request, None)
        if held is None:  # it was discarded
            return
        if not self._can_rewind or not sequence.num_computed or self._bytes(held) > self._limits.prefix_cache_bytes:
            return
        held.tokens, held.num_exact = sequence.computed.copy(), sequence.num_exact
        self._kept[self._num_kept] = held
        self._num_kept += 1
        self._make_room(self._limits.prefix_cache_bytes)

    def discard(self, sequence: Sequence) -> None:
        self._running.pop(sequence.request, None)

    def _make_room(self, kept_bytes: int) -> None:
        """Gives up kept generators, the least recently used first, until they hold at most so many bytes."""
        while self._kept and self.cached_bytes() > kept_bytes:
            del self._kept[next(iter(self._kept))]

    def _bytes(self, held: _Held) -> int:
        return held.capacity * self._limits.kv_bytes_per_token

    def running_bytes(self) -> int:
        return sum(map(self._bytes, self._running.values()))

    def cached_bytes(self) -> int:
        return sum(map(self._bytes, self._kept.values()))

    def reset(self) -> None:
        self._running.clear()
        self._kept.clear()

    def close(self) -> None:
        """Generators hold the model: they go first, then what makes them."""
        self.reset()
        self._create = None


def _steer(generator: Generator, token: int) -> None:
    """Makes genai's greedy search choose a token, which it then computes itself."""
    logits = generator.get_logits()
    logits[:] = _EXCLUDED
    logits[..., token] = 0.0
    generator.set_logits(logits)
    generator.generate_next_token()


def capacity_for(num_tokens: int, context: int) -> int:
    """A generator's size, in steps that double, so that a conversation may go on in the one that it has."""
    capacity = SMALLEST_CAPACITY
    while capacity < num_tokens:
        capacity *= 2
    return min(capacity, context)
