"""The breaker of a model: later each time, then not at all, then once more."""

from __future__ import annotations

import pytest
from engine_bench import Clock

from runtime.pool.breaker import COOLDOWN_S, MOST_IN_ROW, RETRY_DELAYS_S, Breaker


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("some:1", clock)


def fail(breaker: Breaker, times: int) -> None:
    for n in range(times):
        breaker.failed(f"failure {n + 1}.")


def test_each_failure_in_a_row_delays_the_next_try_more(breaker: Breaker) -> None:
    delays = [breaker.retry_delay_s]
    for _ in range(MOST_IN_ROW - 1):
        breaker.failed("again.")
        delays.append(breaker.retry_delay_s)
    assert delays == [0.0, *RETRY_DELAYS_S]
    assert not breaker.is_open


def test_it_opens_after_so_many_in_a_row_and_says_why(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, MOST_IN_ROW)
    assert breaker.is_open
    clock.now += 100
    refusal = breaker.refusal()
    assert refusal.code == "model_broken"
    assert refusal.retry_after_s == COOLDOWN_S - 100
    for part in ("some:1 failed 5 times in a row", "another 200 s", "failure 5.", "reset"):
        assert part in refusal.message


def test_an_answer_between_failures_begins_a_new_row(breaker: Breaker) -> None:
    fail(breaker, MOST_IN_ROW - 1)
    breaker.worked()
    fail(breaker, MOST_IN_ROW - 1)
    assert not breaker.is_open


def test_after_a_while_one_more_failure_opens_it_again(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, MOST_IN_ROW)
    clock.now += COOLDOWN_S
    assert not breaker.is_open
    breaker.failed("still.")
    assert breaker.is_open


def test_after_a_while_one_answer_closes_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, MOST_IN_ROW)
    clock.now += COOLDOWN_S
    breaker.worked()
    fail(breaker, MOST_IN_ROW - 1)
    assert not breaker.is_open


def test_a_reset_closes_it_at_once(breaker: Breaker) -> None:
    fail(breaker, MOST_IN_ROW)
    breaker.reset()
    assert not breaker.is_open
    assert breaker.retry_delay_s == 0.0
    assert breaker.last_error is None
