"""Log probabilities are those of the model's softmax, and the alternatives its likeliest tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.batching.sampler import token_logprob


def name(token: int) -> bytes:
    return f"t{token}".encode()


def test_a_small_distribution_by_hand() -> None:
    logits = np.log(np.array([0.1, 0.6, 0.3], np.float32))
    reported = token_logprob(logits, 2, 2, name)
    assert (reported.token_id, reported.token) == (2, b"t2")
    assert reported.logprob == pytest.approx(math.log(0.3), abs=1e-6)
    assert [(each.token_id, each.token) for each in reported.top] == [(1, b"t1"), (2, b"t2")]
    assert [each.logprob for each in reported.top] == pytest.approx([math.log(0.6), math.log(0.3)], abs=1e-6)


def test_the_lower_id_of_equals_comes_first() -> None:
    logits = np.array([0.0, 5.0, 1.0, 1.0, 1.0], np.float32)
    assert [each.token_id for each in token_logprob(logits, 4, 3, name).top] == [1, 2, 3]


def test_none_requested_none_named() -> None:
    assert token_logprob(np.zeros(4, np.float32), 0, 0, name).top == []


def test_more_than_the_vocabulary_is_all_of_it() -> None:
    assert len(token_logprob(np.zeros(4, np.float32), 0, 20, name).top) == 4


def test_large_logits_do_not_overflow() -> None:
    reported = token_logprob(np.array([3e4, 3e4], np.float32), 1, 0, name)
    assert reported.logprob == pytest.approx(math.log(0.5))


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=200), st.integers(0, 20))
def test_it_is_a_distribution_whose_best_are_named(values: list[float], count: int) -> None:
    logits = np.array(values, np.float32)
    every = [token_logprob(logits, token, count, name) for token in range(len(values))]
    assert sum(math.exp(each.logprob) for each in every) == pytest.approx(1, abs=1e-5)
    ranked = sorted(range(len(values)), key=lambda token: (-logits[token], token))[:count]
    assert [each.token_id for each in every[0].top] == ranked
