"""Which sequences enter and what the next step does. Pure: no clock, lock, thread, log or array.

The decision, in order:
    1. Admit waiting sequences while rows are free, in the order of `fair_queue`; with none free, exchange rows as it says.
    2. If the last step was a prefill and rows are decoding, decode: running rows are never starved by prompts.
    3. If a prompt is unfinished, prefill: chunks of prompts in the order of `prefill_turns`, together at most the token budget.
    4. Otherwise decode every running row.

The budget of a prefill step follows from the gap that running rows may see (Sarathi-Serve, Agrawal et al. 2024):
see `prefill_budget`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runtime.batching.fair_queue import Exchange, FairQueue
from runtime.batching.prefill_turns import PrefillTurns
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
        """Who must be refused before the newcomer can be added, perhaps itself; nobody while there is room.

        Rows that are free count as room: the limit is on those that truly wait. The reserve is an eighth more.
        """
        room = self._max_waiting + max(0, self._num_rows - len(self.running)) - self.num_waiting
        if room > 0:
            return ()
        return self._waiting.plan_refusal(newcomer, has_reserve=-room < (self._max_waiting + 7) // 8)

    def add(self, sequence: Sequence) -> None:
        self._waiting.add(sequence)

    def first_waiting(self) -> Sequence | None:
        """The one to `admit` next; None when nobody waits, or no row is free."""
        return self._waiting.first() if len(self.running) < self._num_rows else None

    def admit(self, sequence: Sequence) -> None:
        """Takes a waiting sequence in. The caller gives it a slot."""
        self._waiting.take(sequence)
        sequence.move_to(SequenceStatus.PREFILL)
        self.running.append(sequence)

    def plan_exchange(self) -> Exchange | None:
        """Whom to preempt and whom to admit instead, when nobody can be admitted otherwise."""
        return self._waiting.plan_exchange(self.running) if self.num_waiting else None

    def preempt(self, sequence: Sequence) -> None:
        """Sends a running sequence back to wait; its tokens stay."""
        self.running.remove(sequence)
        self._waiting.release(sequence)
        sequence.move_to(SequenceStatus.WAITING)
        self._waiting.add(sequence)

    def plan_preemption(self) -> Sequence | None:
        """Who gives way when KV memory is short. None when only one is left, which must be able to finish."""
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
