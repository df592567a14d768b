"""Which sequence holds which row of the KV arrays. The only one who moves, copies or frees rows.

    0 .. num_decoding-1            decoding sequences, without holes, because a step computes a contiguous range of rows
    num_decoding .. num_slots-1    prompts being computed, or nothing
    num_slots .. 2 num_slots-1     what finished sequences left, kept for its prefix
    2 num_slots                    scratch, for two rows that change places

ONNX Runtime computes a single token with another attention kernel than a prompt, so the KV of answer tokens differs in its last
bits from that of the same tokens as prompt. Those bits can turn a close choice. A request that asks for a repeatable answer (greedy
or seeded) therefore reuses only exact KV, computed as prompt; others reuse answers too. Nobody reuses another adapter's KV.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.batching.prefix_cache import MIN_REUSED_TOKENS, CachedRow, Match, best_match, plan_eviction
from runtime.batching.sequence import Sequence

MIN_COMPUTED_TOKENS = 2  # of a prompt: one token alone would go through the other kernel


def num_rows(num_slots: int) -> int:
    """How many rows the arrays must have."""
    return 2 * num_slots + 1


class Rows(Protocol):
    """The arrays, as `KVCache` and the fake model have them. See there for what each operation promises."""

    @property
    def bytes_per_token(self) -> int: ...

    def move(self, source: int, target: int) -> None: ...

    def copy(self, source: int, target: int, num_tokens: int) -> None: ...

    def free(self, row: int) -> None: ...

    def backed_bytes(self) -> int: ...


class Slots:
    """rows: `num_rows(num_slots)` of them. prefix_cache_bytes bounds what finished sequences leave.

    queries and hits count prompt tokens asked for and found.
    """

    def __init__(self, rows: Rows, *, num_slots: int, prefix_cache_bytes: int) -> None:
        self._rows = rows
        self._num_slots = num_slots
        self._max_cached_tokens = prefix_cache_bytes // max(1, rows.bytes_per_token)
        self._active: dict[int, Sequence] = {}
        self._cached: dict[int, CachedRow] = {}
        self._uses = 0
        self.num_decoding = 0
        self.queries = 0
        self.hits = 0

    def place(self, sequence: Sequence) -> None:
        """Gives an admitted sequence a row, with as much of its prompt as an earlier row already holds.

        The end of the prompt is always computed anew: its logits choose the first token.
        """
        row = next(row for row in range(self.num_decoding, self._num_slots) if row not in self._active)
        if self._take_back(sequence, row):
            return
        match = self._match(sequence)
        sequence.max_exact = sequence.prompt_len
        if match is not None:
            sequence.max_exact = self._max_exact(sequence, match)
            self._bring(match, row, sequence.is_repeatable)
        sequence.num_computed = match.num_tokens if match else 0
        if not sequence.is_announced:
            sequence.num_cached = sequence.num_computed
        self._hold(row, sequence)
        self.queries += sequence.prompt_len
        self.hits += sequence.num_computed

    def _take_back(self, sequence: Sequence, row: int) -> bool:
        """Whether the row that it lost is still there: then it has it again, bit for bit, and nothing is computed anew."""
        kept = next((kept for kept, held in self._cached.items() if held.returns_to == sequence.request), None)
        if kept is None:
            return False
        held = self._cached.pop(kept)
        self._rows.move(kept, row)
        sequence.num_computed = len(held.tokens)
        self._hold(row, sequence)
        return True

    def catch_up(self, sequence: Sequence) -> None:
        """Before a placed sequence's first chunk: what others have computed since may hold more of its prompt."""
        match = self._match(sequence)
        if match is None or match.num_tokens < sequence.num_computed + MIN_REUSED_TOKENS:
            return
        sequence.max_exact = self._max_exact(sequence, match)
        self._rows.copy(match.row, sequence.slot, match.num_tokens)
        self.hits += match.num_tokens - sequence.num_computed
        sequence.num_computed = sequence.num_cached = match.num_tokens

    def _match(self, sequence: Sequence) -> Match | None:
        """The other row that holds most of its prompt, but for the end of it."""
        if sequence.reads_prompt:
            return None
        reusable = ((row, tokens) for row, tokens in self._reusable(sequence) if row != sequence.slot)
        return best_match(sequence.prompt[:-MIN_COMPUTED_TOKENS], reusable)

    def _max_exact(self, sequence: Sequence, match: Match) -> int:
        """On KV that is not exact nothing exact can follow."""
        exact = self._num_exact(match.row)
        return exact if match.num_tokens > exact else sequence.prompt_len

    def _reusable(self, asking: Sequence) -> Iterator[tuple[int, NDArray[np.int32]]]:
        exact_only = asking.is_repeatable
        for row, held in self._cached.items():
            if held.adapter == asking.adapter:
                yield row, held.tokens[: held.num_exact] if exact_only else held.tokens
        for row, sequence in self._active.items():
            if sequence.adapter == asking.adapter:
                yield row, sequence.computed[: sequence.num_exact] if exact_only else sequence.computed

    def _num_exact(self, row: int) -> int:
        held = self._cached.get(row)
        return self._active[row].num_exact if held is None else held.num_exact

    def _bring(self, match: Match, row: int, exact_only: bool) -> None:
        """A whole cached row, whose conversation goes on, moves; a prefix that others may share is copied."""
        held = self._cached.get(match.row)
        if held is not None and match.num_tokens == (held.num_exact if exact_only else len(held.tokens)):
            del self._cached[match.row]
            self._rows.move(match.row, row)
        else:
            if held is not None:
                self._uses += 1
                self._cached[match.row] = replace(held, used_at=self._uses)
            self._rows.copy(match.row, row, match.num_tokens)

    def start_decoding(self, sequence: Sequence) -> None:
        """Brings the sequence's row to the end of the decoding range."""
        row, target = sequence.slot, self.num_decoding
        other = self._active.get(target)
        if other is not None and other is not sequence:
            scratch = 2 * self._num_slots
            self._rows.move(target, scratch)
            self._rows.move(row, target)
            self._rows.move(scratch, row)
            self._hold(row, other)
            self._hold(target, sequence)
        elif row != target:
            self._relocate(sequence, target)
        self.num_decoding += 1

    def release(self, sequence: Sequence, *, was_decoding: bool, returns: bool = False) -> None:
        """The sequence leaves. What it computed is kept for its prefix, within the budget; a decoding row's hole is closed.

        returns: it was preempted, and takes its row back if that is still kept when it is placed again.
        """
        row = sequence.slot
        del self._active[row]
        sequence.slot = -1
        self._keep(row, sequence, returns_to=sequence.request if returns else None)
        if was_decoding:
            self.num_decoding -= 1
            if row != self.num_decoding:
                self._relocate(self._active[self.num_decoding], row)
        self.shrink(self._max_cached_tokens)

    def _keep(self, row: int, sequence: Sequence, returns_to: int | None) -> None:
        if not 0 < sequence.num_computed <= self._max_cached_tokens:
            return
        spare = range(self._num_slots, 2 * self._num_slots)
        free = [row for row in spare if row not in self._cached]
        target = free[0] if free else min(self._cached, key=lambda row: self._cached[row].used_at)
        self._rows.move(row, target)
        self._uses += 1
        self._cached[target] = CachedRow(sequence.computed.copy(), sequence.num_exact, self._uses, sequence.adapter, returns_to)

    def shrink(self, max_tokens: int) -> None:
        """Gives up cached rows until they hold at most `max_tokens`, and their memory with them."""
        for row in plan_eviction(self._cached, max_tokens):
            del self._cached[row]
            self._rows.free(row)

    def relieve(self, budget_bytes: int) -> None:
        """Brings memory down to so much, as far as rows that nobody computes on allow: unused ones first, then cached ones."""
        if self.backed_bytes() <= budget_bytes:
            return
        self.give_back()
        tokens_over = -(-(self.backed_bytes() - budget_bytes) // self._rows.bytes_per_token)
        if tokens_over > 0:
            self.shrink(max(0, self.num_cached_tokens - tokens_over))

    def give_back(self) -> None:
        """Frees the memory of rows that hold nothing of use: whoever left one behind left its pages in place for the next."""
        for row in range(num_rows(self._num_slots)):
            if row not in self._active and row not in self._cached:
                self._rows.free(row)

    @property
    def num_cached_tokens(self) -> int:
        return sum(len(held.tokens) for held in self._cached.values())

    def decoding(self) -> list[Sequence]:
        """The decoding sequences in row order."""
        return [self._active[row] for row in range(self.num_decoding)]

    def backed_bytes(self) -> int:
        return self._rows.backed_bytes()

    def _relocate(self, sequence: Sequence, target: int) -> None:
        """To a row that holds nothing of use."""
        del self._active[sequence.slot]
        self._rows.move(sequence.slot, target)
        self._hold(target, sequence)

    def _hold(self, row: int, sequence: Sequence) -> None:
        self._active[row] = sequence
        sequence.slot = row
