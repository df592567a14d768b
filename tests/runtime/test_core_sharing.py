"""Cores are taken once: those who work share them, those who idle have what they would get."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.pool.core_sharing import share_cores


@pytest.mark.parametrize(
    ("num_cores", "workers", "shares"),
    [
        (8, [True], (8,)),
        (8, [True, True], (4, 4)),
        (8, [True, True, True], (3, 3, 2)),
        (8, [True, False], (8, 4)),
        (8, [False, True, True], (2, 4, 4)),
        (8, [False], (8,)),
        (8, [False, False], (8, 8)),
        (2, [True, True, True], (1, 1, 1)),
        (1, [True, False], (1, 1)),
        (8, [], ()),
    ],
)
def test_shares(num_cores: int, workers: list[bool], shares: tuple[int, ...]) -> None:
    assert share_cores(num_cores, workers) == shares


@given(st.integers(1, 64), st.lists(st.booleans(), max_size=12))
def test_those_who_work_take_every_core_once(num_cores: int, workers: list[bool]) -> None:
    shares = share_cores(num_cores, workers)
    active = [share for share, is_active in zip(shares, workers, strict=True) if is_active]
    assert all(share >= 1 for share in shares)
    if active:
        assert sum(active) == max(num_cores, len(active))
        assert max(active) - min(active) <= 1


@given(st.integers(1, 64), st.lists(st.booleans(), max_size=12))
def test_one_who_joins_has_the_right_number_already(num_cores: int, workers: list[bool]) -> None:
    """At most one thread less than its new share, so that it need not begin its first step with a change."""
    shares = share_cores(num_cores, workers)
    for i, is_active in enumerate(workers):
        if not is_active:
            joined = share_cores(num_cores, [*workers[:i], True, *workers[i + 1 :]])
            assert 0 <= joined[i] - shares[i] <= 1
