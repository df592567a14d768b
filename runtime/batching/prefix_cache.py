"""What of earlier work may be reused, and what leaves first. Knows tokens and rows' numbers, no arrays of a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """Rows to give up, least recently used first, until at most `max_tokens` are held."""
    total = sum(len(row.tokens) for row in cached.values())
    leaving: list[int] = []
    for row in sorted(cached, key=lambda r: cached[r].used_at):
        if total <= max_tokens:
            break
        total -= len(cached[row].tokens)
        leaving.append(row)
    return leaving
