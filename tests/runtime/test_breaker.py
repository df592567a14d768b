"""The breaker of a model: later each time, then not at all, then once more."""

from __future__ import annotations

import pytest

from runtime.pool.breaker import COOLDOWN_S, MOST_IN_ROW, RETRY_DELAYS_S, Breaker
from tests.doubles.engine_bench import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("some:1", clock)


def fail(breaker: Breaker, clock: Clock, times: int) -> None:
    """Attempts that each begin as soon as they may."""
    for n in range(times):
        clock.now += breaker.pause_s
        breaker.failed(f"failure {n + 1}.")


def test_each_failure_in_a_row_makes_the_pause_before_the_next_attempt_longer(breaker: Breaker, clock: Clock) -> None:
    pauses = [breaker.pause_s]
    for _ in range(MOST_IN_ROW - 1):
        fail(breaker, clock, 1)
        pauses.append(breaker.pause_s)
    assert pauses == [0.0, *RETRY_DELAYS_S]
    assert not breaker.is_open


def test_a_pause_ends_by_itself_and_says_how_long_it_lasts(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, 4)
    clock.now += 1.5
    refusal = breaker.refusal()
    assert (refusal.code, refusal.retry_after_s) == ("load_failed", 3.5)
    for part in ("some:1 failed 4 times in a row", "tried again in 3.5 s", "failure 4"):
        assert part in refusal.message
    clock.now += 3.5
    assert breaker.pause_s == 0.0


def test_failures_of_attempts_that_ran_side_by_side_count_as_one(breaker: Breaker, clock: Clock) -> None:
    """Of several replicas, that is."""
    fail(breaker, clock, 2)
    for _ in range(MOST_IN_ROW):
        breaker.failed("the same.")
    assert not breaker.is_open
    assert breaker.pause_s == RETRY_DELAYS_S[1]


def test_it_opens_after_so_many_in_a_row_and_says_why(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, MOST_IN_ROW)
    assert breaker.is_open
    clock.now += 100
    refusal = breaker.refusal()
    assert refusal.code == "model_broken"
    assert refusal.retry_after_s == COOLDOWN_S - 100
    for part in ("some:1 failed 5 times in a row", "another 200 s", "failure 5.", "reset"):
        assert part in refusal.message


def test_an_answer_between_failures_begins_a_new_row(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, MOST_IN_ROW - 1)
    breaker.worked()
    fail(breaker, clock, MOST_IN_ROW - 1)
    assert not breaker.is_open


def test_after_a_while_one_more_failure_opens_it_again(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, MOST_IN_ROW)
    clock.now += COOLDOWN_S
    assert not breaker.is_open
    breaker.failed("still.")
    assert breaker.is_open


def test_after_a_while_one_answer_closes_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, MOST_IN_ROW)
    clock.now += COOLDOWN_S
    breaker.worked()
    fail(breaker, clock, MOST_IN_ROW - 1)
    assert not breaker.is_open


def test_a_reset_closes_it_at_once(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, MOST_IN_ROW)
    breaker.reset()
    assert not breaker.is_open
    assert breaker.pause_s == 0.0
    assert breaker.last_error is None
