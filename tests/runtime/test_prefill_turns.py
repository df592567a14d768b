"""Whose prompts are computed first: principals by turns, and of one's prompts the earliest and the shortest by turns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.batching.scheduler import Scheduler
from runtime.batching.sequence import Sequence, SequenceStatus
from tests.doubles.sequences import make_sequence

BUDGET = 16


def running(*prompts: tuple[str, int]) -> tuple[Scheduler, list[Sequence]]:
    scheduler = Scheduler(num_rows=len(prompts), max_waiting=0)
    sequences = [make_sequence(range(size), principal=principal) for principal, size in prompts]
    for sequence in sequences:
        scheduler.add(sequence)
        scheduler.admit(sequence)
    return scheduler, sequences


def step(scheduler: Scheduler) -> list[Sequence]:
    """Computes the next chunks. Whose they were, in order."""
    computed = []
    for chunk in scheduler.plan_step(BUDGET).prefill:
        chunk.sequence.num_computed += chunk.num_tokens
        if chunk.sequence.num_computed == chunk.sequence.prompt_len:
            scheduler.remove(chunk.sequence)
        computed.append(chunk.sequence)
    return computed


def test_a_short_prompt_does_not_wait_for_anothers_long_ones() -> None:
    scheduler, (*_, short) = running(*[("flood", 4000)] * 15, ("chat", 10))
    step(scheduler)
    step(scheduler)
    assert short.status is SequenceStatus.FINISHED


def test_a_short_prompt_does_not_wait_for_its_principals_long_ones() -> None:
    scheduler, (*_, short) = running(*[("", 4000)] * 15, ("", 10))
    step(scheduler)
    step(scheduler)
    assert short.status is SequenceStatus.FINISHED


def test_the_earliest_has_half_of_its_principals_steps_however_many_short_ones_come() -> None:
    scheduler, (long, *_) = running(("", 160), *[("", 16)] * 40)
    for _ in range(20):
        step(scheduler)
    assert long.status is SequenceStatus.FINISHED


def test_prompts_of_one_length_are_computed_one_after_the_other() -> None:
    """So that the second finds what the first has computed, where they begin alike."""
    scheduler, sequences = running(*[("", 64)] * 3)
    order = [sequence for _ in range(12) for sequence in step(scheduler)]
    assert order == [sequence for sequence in sequences for _ in range(4)]


def test_two_long_prompts_of_two_principals_share_the_steps() -> None:
    scheduler, (first, second) = running(("a", 4000), ("b", 4000))
    for _ in range(10):
        step(scheduler)
    assert first.num_computed == second.num_computed == 5 * BUDGET


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 100)), min_size=1, max_size=10))
def test_every_prompt_ends_and_no_step_is_wasted(prompts: list[tuple[str, int]]) -> None:
    scheduler, _ = running(*prompts)
    most = sum(size for _, size in prompts) // (BUDGET // 2) + len(prompts)
    for _ in range(most):
        assert step(scheduler) or not scheduler.running
    assert not scheduler.running
