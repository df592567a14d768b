"""Which sequences enter and what the next step does. Pure: no clock, lock, thread, log or array.

The decision, in order:
    1. Admit waiting sequences, lowest priority number first, then first come first served, while rows are free.
    2. If the last step was a prefill and rows are decoding, decode: running rows are never starved by prompts.
    3. If a prompt is unfinished, prefill: chunks of the earliest prompts, together at most the token budget.
    4. Otherwise decode every running row.

The budget of a prefill step follows from the gap that running rows may see (Sarathi-Serve, Agrawal et al. 2024):
see `prefill_budget`.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from runtime.batching.sequence import Sequence, SequenceStatus


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
    With nothing decoding nobody waits, and `largest` bounds only how late an abort is seen.
    Never below `smallest`: prompts must advance.
    """
    if num_decoding == 0 or token_s <= 0:
        return largest
    return int(min(largest, max(smallest, (gap_s - decode_s) / token_s)))


class Scheduler:
    """The queues. waiting is sorted by (priority, arrival); running holds admitted sequences in admission order."""

    def __init__(self, *, num_rows: int, max_waiting: int) -> None:
        self._num_rows = num_rows
        self._max_waiting = max_waiting
        self._order: dict[int, int] = {}
        self._arrivals = 0
        self._last_was_prefill = False
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []

    @property
    def num_unfinished(self) -> int:
        return len(self.waiting) + len(self.running)

    def can_add(self) -> bool:
        """Rows that are free count as room: the limit is on those that truly wait."""
        return len(self.waiting) < self._max_waiting + max(0, self._num_rows - len(self.running))

    def add(self, sequence: Sequence) -> None:
        """Queues a new sequence, or one that lost its slot: that one keeps its place in the order of arrival."""
        if sequence.request not in self._order:
            self._order[sequence.request] = self._arrivals
            self._arrivals += 1
        bisect.insort(self.waiting, sequence, key=self._rank)

    def _rank(self, sequence: Sequence) -> tuple[int, int]:
        return sequence.priority, self._order[sequence.request]

    def can_admit(self) -> bool:
        return bool(self.waiting) and len(self.running) < self._num_rows

    def admit(self) -> Sequence:
        """Takes the first waiting sequence in. The caller gives it a slot."""
        sequence = self.waiting.pop(0)
        sequence.move_to(SequenceStatus.PREFILL)
        self.running.append(sequence)
        return sequence

    def preempt(self, sequence: Sequence) -> None:
        """Sends a running sequence back to wait; its tokens stay, its KV is computed again."""
        self.running.remove(sequence)
        sequence.move_to(SequenceStatus.WAITING)
        self.add(sequence)

    def plan_preemption(self) -> Sequence | None:
        """Who gives way when KV memory is short: the last in rank. None when only one is left, which must be able to finish."""
        return max(self.running, key=self._rank) if len(self.running) > 1 else None

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is."""
        (self.waiting if sequence.status is SequenceStatus.WAITING else self.running).remove(sequence)
        sequence.move_to(SequenceStatus.FINISHED)
        del self._order[sequence.request]

    def plan_step(self, budget: int) -> StepPlan:
        """The next step, from the queues as they are; `budget` as `prefill_budget` gives it."""
        decoding = tuple(s for s in self.running if s.status is SequenceStatus.DECODE)
        prefilling = [s for s in self.running if s.status is SequenceStatus.PREFILL]
        if prefilling and not (self._last_was_prefill and decoding):
            self._last_was_prefill = True
            return StepPlan(prefill=_chunks(prefilling, budget))
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


def _chunks(prefilling: list[Sequence], budget: int) -> tuple[PrefillChunk, ...]:
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
