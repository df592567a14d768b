"""Which examples share a row, and what such a row looks like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.tasks.finetune.material import best_fit, packed_row
from jobs.tasks.finetune.rendering import IGNORED, Tokens

pytestmark = pytest.mark.unit


@given(st.lists(st.integers(1, 20), max_size=80), st.integers(0, 3))
def test_every_example_is_in_one_row_and_no_row_is_too_long(lengths: list[int], seed: int) -> None:
    rows = best_fit(lengths, 20, seed)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 20 for row in rows)
    assert rows == best_fit(lengths, 20, seed)
    half_empty = [row for row in rows if sum(lengths[index] for index in row) <= 10]
    assert len(half_empty) <= 1


def test_the_fullest_row_with_room_is_taken() -> None:
    rows = best_fit([7, 6, 3, 4, 1], 10, seed=0)
    assert sorted(sorted(row) for row in rows) == [[0, 2], [1, 3], [4]]


def test_the_seed_chooses_among_examples_of_one_length() -> None:
    assert len({str(best_fit([5] * 8, 10, seed)) for seed in range(5)}) > 1


def test_positions_restart_and_nothing_is_learned_across_a_border() -> None:
    row = packed_row([Tokens(1, [5, 6, 7], [IGNORED, 6, 7]), Tokens(2, [8, 9], [8, 9])])
    assert row.input_ids == [5, 6, 7, 8, 9]
    assert row.position_ids == [0, 1, 2, 0, 1]
    assert row.labels == [IGNORED, 6, 7, IGNORED, 9]
