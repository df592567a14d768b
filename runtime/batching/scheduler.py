"""Which sequences are admitted, whose prompts come first, and what the next step computes. Pure: no clock, lock or array.

The decision of a step, in order:

1. Waiting sequences are admitted while rows are free, in the order of `fair_queue`; with none free, rows are exchanged as it
   decides.
2. If the last step was a prefill and rows are decoding, all of them decode: prompts never starve running rows.
3. If a prompt is unfinished, chunks of prompts are computed, in the order of `PrefillTurns`, together at most the token budget.
4. Otherwise every running row decodes.

The budget of a prefill step follows from the gap that running rows may see (Sarathi-Serve, Agrawal et al. 2024): see
`prefill_budget`, which works on `StepCosts`. A jump computes several tokens of one decoding row, before the step of all rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.batching.fair_queue import Exchange, FairQueue
from runtime.batching.sequence import Sequence, SequenceStatus

_WEIGHT = 0.2


class StepCosts:
    """token_s: prefill seconds per prompt token; decode_s: seconds of a decode step. Zero until first observed."""

    def __init__(self) -> None:
        self.token_s = 0.0
        self.decode_s = 0.0

    def saw_prefill(self, seconds: float, num_tokens: int) -> None:
        if num_tokens >= 8:  # shorter chunks are all overhead and would shrink the next budget
            self.token_s = _blend(self.token_s, seconds / num_tokens)

    def saw_decode(self, seconds: float) -> None:
        self.decode_s = _blend(self.decode_s, seconds)


def _blend(old: float, new: float) -> float:
    return new if old == 0 else old + _WEIGHT * (new - old)


class PrefillTurns:
    """Principals take turns, one step each; this remembers of each when its last turn was, and how many it has had.

    Of one principal's prompts the earliest and the shortest go first by turns: a short prompt does not wait for a flood of long
    ones, and long ones have at least half of their principal's steps, in their order. More than two are not interleaved: the others
    would end no earlier, and prompts that begin alike, such as the n of one request, find nothing to reuse while all are computed
    at once.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._num_turns: dict[str, int] = {}
        self._num_ended = 0

    def order(self, prefilling: list[Sequence]) -> list[Sequence]:
        """prefilling: in the order of admission. All of them, the next to be computed first."""
        ordered: list[Sequence] = []
        for principal in sorted(dict.fromkeys(each.principal for each in prefilling), key=lambda each: self._last.get(each, 0)):
            prompts = [each for each in prefilling if each.principal == principal]
            if self._num_turns.get(principal, 0) % 2:
                prompts.sort(key=lambda each: each.prompt_len - each.num_computed)
            ordered += prompts
        return ordered

    def end(self, computed: Iterable[Sequence]) -> None:
        """A step computes chunks of these, in this order."""
        for principal in dict.fromkeys(each.principal for each in computed):
            self._num_ended += 1
            self._last[principal] = self._num_ended
            self._num_turns[principal] = self._num_turns.get(principal, 0) + 1


@dataclass(frozen=True, slots=True)
class Jump:
    """tokens: int32 [n], two at least, that follow those which the row holds; the last num_drafted of them are proposed only.

    replays_to: how many tokens the row holds afterwards, where they were computed once before; None: the next is to be chosen.
    """

    tokens: NDArray[np.int32]
    num_drafted: int = 0
    replays_to: int | None = None


def plan_jump(sequence: Sequence, num_decoding: int) -> Jump | None:
    """The tokens of a decoding row that are computed together; None: no more than one.

    num_decoding: rows in the next step, this one among them. Tokens that are known before they are computed need no step each:
    those that a constraint forces, and those that a prediction proposes, which are verified. A chunk of k tokens costs about 5.6
    ms + 1.1 ms k on two cores with the default model, a step of n rows 6 ms + 0.9 ms n, and all rows wait for a chunk. So a row
    jumps when a chunk saves it as many steps as there are rows that wait.

    ONNX Runtime computes one token by another kernel than several (see `Slots`), which shows in the last bits, so a repeatable row
    jumps whenever it can, whatever runs beside it. In each step a row jumps at most once, then takes part in the step of all rows:
    which of its tokens go together depends on nothing but itself, and after a preemption they go together again.
    """
    if sequence.num_computed < sequence.num_settled:
        return _plan_replay(sequence)
    if sequence.num_pending > 1:
        worth = _is_worth(sequence, sequence.num_pending - 1, num_decoding)
        return Jump(sequence.known[sequence.num_computed :]) if worth else None
    if sequence.draft is None:
        return None
    most = sequence.params.max_tokens - sequence.num_generated - 1  # one more is chosen after the last
    drafted = sequence.draft.propose(sequence.known[sequence.prompt_len :], most)
    if not len(drafted) or not _is_worth(sequence, len(drafted), num_decoding):
        return None
    return Jump(np.concatenate((sequence.known[sequence.num_computed :], drafted)), len(drafted))


def _plan_replay(sequence: Sequence) -> Jump | None:
    """A span of one token was computed in a chunk of more, and is again: the token after it is known by now."""
    start = sequence.num_computed
    end = sequence.spans.get(start)
    return None if end is None else Jump(sequence.tokens[start : max(end, start + 2)], replays_to=end)


def _is_worth(sequence: Sequence, num_saved: int, num_decoding: int) -> bool:
    return sequence.is_repeatable or num_saved >= num_decoding - 1


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Compute `num_tokens` more tokens of `sequence`, beginning after those already computed."""

    sequence: Sequence
    num_tokens: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Either chunks to prefill, one after the other, or rows to decode together, or nothing (both empty)."""

    prefill: tuple[PrefillChunk, ...] = ()
    decode: tuple[Sequence, ...] = ()


def prefill_budget(*, gap_s: float, decode_s: float, token_s: float, num_decoding: int, smallest: int, largest: int) -> int:
    """Tokens that one prefill step may compute.

    gap_s: the longest gap between two tokens of a running row; decode_s: a decode step's time; token_s: prefill time per token.
    With nothing decoding, no sequence waits, and `largest` only bounds the delay of an abort.
    Never below `smallest`: prompts must advance.
    """
    if num_decoding == 0 or token_s <= 0:
        return largest
    return int(min(largest, max(smallest, (gap_s - decode_s) / token_s)))


class Scheduler:
    """Who waits, and who runs: `running` holds admitted sequences in admission order."""

    def __init__(self, *, num_rows: int, max_waiting: int) -> None:
        self._num_rows = num_rows
        self._max_waiting = max_waiting
        self._waiting = FairQueue()
        self._turns = PrefillTurns()
        self._last_was_prefill = False
        self.running: list[Sequence] = []

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_unfinished(self) -> int:
        return self.num_waiting + len(self.running)

    def plan_refusal(self, newcomer: Sequence) -> tuple[Sequence, ...]:
        """The sequences to refuse before the newcomer can be added, perhaps itself; empty while there is room.

        Rows that are free count as room: the limit is on those that truly wait. The reserve is an eighth more.
        """
        room = self._max_waiting + max(0, self._num_rows - len(self.running)) - self.num_waiting
        if room > 0:
            return ()
        return self._waiting.plan_refusal(newcomer, has_reserve=-room < (self._max_waiting + 7) // 8)

    def add(self, sequence: Sequence) -> None:
        self._waiting.add(sequence)

    def first_waiting(self) -> Sequence | None:
        """The one to `admit` next; None when none waits, or no row is free."""
        return self._waiting.first() if len(self.running) < self._num_rows else None

    def admit(self, sequence: Sequence) -> None:
        """Takes a waiting sequence in. The caller gives it a slot."""
        self._waiting.take(sequence)
        sequence.move_to(SequenceStatus.PREFILL)
        self.running.append(sequence)

    def plan_exchange(self) -> Exchange | None:
        """The sequence to preempt and the one to admit in its place, when none can be admitted otherwise."""
        return self._waiting.plan_exchange(self.running) if self.num_waiting else None

    def preempt(self, sequence: Sequence) -> None:
        """Sends a running sequence back to wait; its tokens stay."""
        self.running.remove(sequence)
        self._waiting.release(sequence)
        sequence.move_to(SequenceStatus.WAITING)
        self._waiting.add(sequence)

    def plan_preemption(self) -> Sequence | None:
        """The sequence to preempt when KV memory is short. None when only one is left, which must be able to finish."""
        return self._waiting.plan_preemption(self.running) if len(self.running) > 1 else None

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is."""
        if sequence.status is SequenceStatus.WAITING:
            self._waiting.discard(sequence)
        else:
            self.running.remove(sequence)
            self._waiting.release(sequence)
        self._waiting.forget(sequence)
        sequence.move_to(SequenceStatus.FINISHED)

    def plan_step(self, budget: int) -> StepPlan:
        """The next step, from the queues as they are; `budget` as `prefill_budget` gives it."""
        decoding = tuple(s for s in self.running if s.status is SequenceStatus.DECODE)
        prefilling = [s for s in self.running if s.status is SequenceStatus.PREFILL]
        if prefilling and not (self._last_was_prefill and decoding):
            self._last_was_prefill = True
            chunks = _chunks(self._turns.order(prefilling), budget)
            self._turns.end(chunk.sequence for chunk in chunks)
            return StepPlan(prefill=chunks)
        self._last_was_prefill = False
        return StepPlan(decode=decoding)


def chunk_size(left: int, most: int) -> int:
    """How many of a prompt's `left` tokens to compute, at most `most`; 0 when that would be too few.

    Neither a chunk nor what it leaves is a single token, unless that is the whole prompt: see `slots` for the reason.
    """
    size = min(left, most)
    if left - size == 1:
        size -= 1
    return size if size >= min(2, left) else 0


def _chunks(prefilling: Iterable[Sequence], budget: int) -> tuple[PrefillChunk, ...]:
    chunks: list[PrefillChunk] = []
    for sequence in prefilling:
        size = chunk_size(sequence.prompt_len - sequence.num_computed, budget)
        if size == 0:
            break
        chunks.append(PrefillChunk(sequence, size))
        budget -= size
        if budget <= 0:
            break
    return tuple(chunks)
