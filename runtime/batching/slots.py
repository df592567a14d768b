"""Which sequence holds which row of the KV arrays. The only one who moves, copies or frees rows.

Rows 0..num_decoding-1 are the decoding sequences, without holes, because a step computes a contiguous range of rows. The other
rows hold prompts being computed, finished sequences kept for their prefix, or nothing. A sequence's row changes when it begins or
ends decoding, and when it makes room for one that does.

ONNX Runtime computes a single token with another attention kernel than a prompt, so the KV of answer tokens differs in its last
bits from that of the same tokens as prompt. Those bits can turn a close choice. A request that asks for a repeatable answer (greedy
or seeded) therefore reuses only exact KV, computed as prompt; others reuse answers too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime.batching.prefix_cache import CachedRow, Match, best_match, plan_eviction
from runtime.batching.sequence import Sequence

MIN_COMPUTED_TOKENS = 2  # of a prompt: one token alone would go through the other kernel


Holder = TypeVar("Holder")


class Rows(Protocol):
    """The arrays, as `KVCache` and the fake model have them."""

    @property
    def rows(self) -> int: ...

    @property
    def bytes_per_token(self) -> int: ...

    def swap(self, a: int, b: int) -> None: ...

    def copy(self, source: int, target: int, num_tokens: int) -> None: ...

    def free(self, row: int) -> None: ...

    def backed_bytes(self) -> int: ...


class Slots:
    """prefix_cache_bytes bounds what finished rows keep. queries/hits count prompt tokens asked for and found."""

    def __init__(self, rows: Rows, *, prefix_cache_bytes: int) -> None:
        self._rows = rows
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
        wanted = sequence.prompt[:-MIN_COMPUTED_TOKENS]
        match = best_match(wanted, self._reusable(sequence.is_repeatable))
        found = match.num_tokens if match else 0
        exact = self._num_exact(match.row) if match else 0
        sequence.slot = self._row_for(match, sequence.is_repeatable)
        self._active[sequence.slot] = sequence
        sequence.num_computed = sequence.num_cached = found
        sequence.max_exact = exact if found > exact else sequence.prompt_len
        self.queries += sequence.prompt_len
        self.hits += found

    def _reusable(self, exact_only: bool) -> Iterator[tuple[int, NDArray[np.int32]]]:
        for row, held in self._cached.items():
            yield row, held.tokens[: held.num_exact] if exact_only else held.tokens
        for row, sequence in self._active.items():
            yield row, sequence.computed[: sequence.num_exact] if exact_only else sequence.computed

    def _num_exact(self, row: int) -> int:
        held = self._cached.get(row)
        return self._active[row].num_exact if held is None else held.num_exact

    def _row_for(self, match: Match | None, exact_only: bool) -> int:
        if match and (held := self._cached.get(match.row)):
            whole = held.num_exact if exact_only else len(held.tokens)
            if match.num_tokens == whole:  # the conversation goes on: take the row over as it stands
                del self._cached[match.row]
                return match.row
        source = match.row if match else None
        row = self._empty_row(keep=source)
        if match and row != match.row:
            self._rows.copy(match.row, row, match.num_tokens)
        return row

    def _empty_row(self, *, keep: int | None) -> int:
        """A row that holds nothing, else the least recently used cached one; `keep`, the row to copy from, only if alone."""
        for row in range(self.num_decoding, self._rows.rows):
            if row not in self._active and row not in self._cached:
                return row
        victim = min(self._cached, key=lambda row: (row == keep, self._cached[row].used_at))
        del self._cached[victim]
        return victim

    def start_decoding(self, sequence: Sequence) -> None:
        """Moves the sequence's row to the end of the decoding range."""
        self._swap(sequence.slot, self.num_decoding)
        self.num_decoding += 1

    def release(self, sequence: Sequence, *, was_decoding: bool) -> None:
        """The sequence leaves; its row is kept for its prefix, within the budget."""
        if was_decoding:
            self.num_decoding -= 1
            self._swap(sequence.slot, self.num_decoding)
        row = sequence.slot
        del self._active[row]
        sequence.slot = -1
        if sequence.num_computed:
            self._uses += 1
            self._cached[row] = CachedRow(sequence.computed.copy(), sequence.num_exact, self._uses)
        self.shrink(self._max_cached_tokens)

    def shrink(self, max_tokens: int) -> None:
        """Gives up cached rows until they hold at most `max_tokens`."""
        for row in plan_eviction(self._cached, max_tokens):
            del self._cached[row]
            self._rows.free(row)

    @property
    def num_cached_tokens(self) -> int:
        return sum(len(held.tokens) for held in self._cached.values())

    def decoding(self) -> list[Sequence]:
        """The decoding sequences in row order."""
        return [self._active[row] for row in range(self.num_decoding)]

    def backed_bytes(self) -> int:
        return self._rows.backed_bytes()

    def _swap(self, a: int, b: int) -> None:
        if a == b:
            return
        self._rows.swap(a, b)
        _swap_keys(self._active, a, b)
        _swap_keys(self._cached, a, b)
        for row in (a, b):
            if row in self._active:
                self._active[row].slot = row


def _swap_keys(holders: dict[int, Holder], a: int, b: int) -> None:
    held_a, held_b = holders.pop(a, None), holders.pop(b, None)
    if held_a is not None:
        holders[b] = held_a
    if held_b is not None:
        holders[a] = held_b
