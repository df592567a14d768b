"""Which sequence holds which row of the KV arrays, and what finished rows may be reused for.

The only file that moves, copies or frees rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.batching.sequence import Sequence

MIN_REUSED_TOKENS = 4  # below this, copying costs as much as computing


@dataclass(frozen=True, slots=True)
class CachedRow:
    """What a finished sequence left in its row: tokens int32 [n] whose KV is there. used_at: a count of uses, higher is later.

    num_exact: how many of the tokens were computed as prompt, see `slots`. adapter: with whose weights.
    returns_to: the request that was preempted and will take the row back.
    """

    tokens: NDArray[np.int32]
    num_exact: int
    used_at: int
    adapter: int = 0
    returns_to: int | None = None


@dataclass(frozen=True, slots=True)
class Match:
    row: int
    num_tokens: int


def common_prefix(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """Length of the longest common prefix of two token arrays."""
    size = min(len(a), len(b))
    differs = a[:size] != b[:size]
    return int(differs.argmax()) if differs.any() else size


def best_match(wanted: NDArray[np.int32], rows: Iterable[tuple[int, NDArray[np.int32]]]) -> Match | None:
    """The row with the longest common prefix, the lowest row of several; None when nothing is worth reusing."""
    best = None
    for row, tokens in rows:
        length = common_prefix(wanted, tokens)
        if length >= MIN_REUSED_TOKENS and (best is None or length > best.num_tokens):
            best = Match(row, length)
    return best


def plan_eviction(cached: dict[int, CachedRow], max_tokens: int) -> list[int]:
    """The rows to evict, least recently used first, until at most `max_tokens` are held."""
    total = sum(len(row.tokens) for row in cached.values())
    leaving: list[int] = []
    for row in sorted(cached, key=lambda r: cached[r].used_at):
        if total <= max_tokens:
            break
        total -= len(cached[row].tokens)
        leaving.append(row)
    return leaving


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

    queries and hits count the prompt tokens that were looked up and found. The rows are, by number:

        0 .. num_decoding - 1           decoding sequences, without holes, because a step computes a contiguous range of rows
        num_decoding .. num_slots - 1   prompts that are being computed, or nothing
        num_slots .. 2 num_slots - 1    what finished sequences left, kept for its prefix
        2 num_slots                     scratch, for two rows that change places

    ONNX Runtime computes a single token with another attention kernel than a prompt, so the KV of answer tokens differs in its
    last bits from that of the same tokens as a prompt. Those bits can turn a close choice. A request that needs a repeatable
    answer (greedy or seeded) therefore reuses only exact KV, computed as a prompt; others reuse answers too. KV of another adapter
    is never reused.
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

        The end of the prompt is always recomputed: its logits choose the first token.
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
        """Whether the row that it lost is still cached: then it gets it back, bit for bit, and nothing is recomputed."""
        kept = next((kept for kept, held in self._cached.items() if held.returns_to == sequence.request), None)
        if kept is None:
            return False
        held = self._cached.pop(kept)
        self._rows.move(kept, row)
        sequence.num_computed = len(held.tokens)
        self._hold(row, sequence)
        return True

    def catch_up(self, sequence: Sequence) -> None:
        """Called before a placed sequence's first chunk: rows that others have computed since may share more of its prompt."""
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
        """The most exact tokens: KV after inexact KV cannot be exact."""
        exact = self._num_exact(match.row)
        return exact if match.num_tokens > exact else sequence.prompt_len

    def _reusable(self, newcomer: Sequence) -> Iterator[tuple[int, NDArray[np.int32]]]:
        exact_only = newcomer.is_repeatable
        for row, held in self._cached.items():
            if held.adapter == newcomer.adapter:
                yield row, held.tokens[: held.num_exact] if exact_only else held.tokens
        for row, sequence in self._active.items():
            if sequence.adapter == newcomer.adapter:
                yield row, sequence.computed[: sequence.num_exact] if exact_only else sequence.computed

    def _num_exact(self, row: int) -> int:
        held = self._cached.get(row)
        return self._active[row].num_exact if held is None else held.num_exact

    def _bring(self, match: Match, row: int, exact_only: bool) -> None:
        """A cached row that is used as a whole is moved; a prefix that others may share is copied."""
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
        """Evicts cached rows, and frees their memory, until they hold at most `max_tokens`."""
        for row in plan_eviction(self._cached, max_tokens):
            del self._cached[row]
            self._rows.free(row)

    def enforce_kv_budget(self, budget_bytes: int) -> None:
        """Frees rows that no sequence computes on until at most budget_bytes are backed: unused rows first, then cached ones."""
        if self.backed_bytes() <= budget_bytes:
            return
        self.release_unused_pages()
        tokens_over = -(-(self.backed_bytes() - budget_bytes) // self._rows.bytes_per_token)
        if tokens_over > 0:
            self.shrink(max(0, self.num_cached_tokens - tokens_over))

    def release_unused_pages(self) -> None:
        """Frees the memory of rows that are neither active nor cached: a sequence that leaves keeps its row's pages mapped for the
        next one.
        """
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
        """Moves a sequence to a free row."""
        del self._active[sequence.slot]
        self._rows.move(sequence.slot, target)
        self._hold(target, sequence)

    def _hold(self, row: int, sequence: Sequence) -> None:
        self._active[row] = sequence
        sequence.slot = row
