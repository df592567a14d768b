"""What may be reused, and what leaves first."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtime.batching.slots import MIN_REUSED_TOKENS, CachedRow, Match, best_match, common_prefix, plan_eviction

token_lists = st.lists(st.integers(0, 2), max_size=12)


def tokens(values: list[int]) -> np.ndarray:
    return np.array(values, np.int32)


@given(token_lists, token_lists)
def test_the_common_prefix_is_the_longest(a: list[int], b: list[int]) -> None:
    length = common_prefix(tokens(a), tokens(b))
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]


@given(token_lists, st.lists(token_lists, max_size=5))
def test_the_longest_match_wins_then_the_first_row(wanted: list[int], held: list[list[int]]) -> None:
    lengths = [common_prefix(tokens(wanted), tokens(row)) for row in held]
    longest = max(lengths, default=0)
    expected = Match(lengths.index(longest), longest) if longest >= MIN_REUSED_TOKENS else None
    assert best_match(tokens(wanted), [(i, tokens(row)) for i, row in enumerate(held)]) == expected


def cached(size: int, used_at: int) -> CachedRow:
    return CachedRow(np.zeros(size, np.int32), size, used_at)


def test_the_least_recently_used_leave_first() -> None:
    rows = {0: cached(10, used_at=3), 1: cached(10, used_at=1), 2: cached(10, used_at=2)}
    assert plan_eviction(rows, 30) == []
    assert plan_eviction(rows, 15) == [1, 2]
    assert plan_eviction(rows, 0) == [1, 2, 0]


@given(st.lists(st.integers(1, 20), max_size=8), st.integers(0, 100))
def test_eviction_stops_as_soon_as_the_rest_fits(sizes: list[int], most: int) -> None:
    rows = {i: cached(size, used_at=i) for i, size in enumerate(sizes)}
    leaving = plan_eviction(rows, most)
    kept = sum(size for i, size in enumerate(sizes) if i not in leaving)
    assert kept <= most
    if leaving:
        assert kept + sizes[leaving[-1]] > most
