"""The scheduler's numbered rules, one by one, and what must hold whatever arrives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.batching.scheduler import Scheduler, StepPlan, prefill_budget
from runtime.batching.sequence import Sequence, SequenceStatus
from tests.doubles.sequences import make_sequence


def scheduler_with(*sequences: Sequence, num_rows: int = 4, max_waiting: int = 8) -> Scheduler:
    scheduler = Scheduler(num_rows=num_rows, max_waiting=max_waiting)
    for sequence in sequences:
        scheduler.add(sequence)
    return scheduler


def admit_all(scheduler: Scheduler) -> list[Sequence]:
    admitted = []
    while (sequence := scheduler.first_waiting()) is not None:
        scheduler.admit(sequence)
        admitted.append(sequence)
    return admitted


def has_room(scheduler: Scheduler) -> bool:
    return not scheduler.plan_refusal(make_sequence())


def carry_out(plan: StepPlan) -> None:
    """What the engine would do to the sequences, without a model."""
    for chunk in plan.prefill:
        chunk.sequence.num_computed += chunk.num_tokens
        if chunk.sequence.num_computed == chunk.sequence.prompt_len:
            chunk.sequence.move_to(SequenceStatus.DECODE)
            chunk.sequence.append(0)
    for sequence in plan.decode:
        sequence.num_computed += 1
        sequence.append(0)


def test_first_come_is_first_served() -> None:
    sequences = [make_sequence() for _ in range(3)]
    assert admit_all(scheduler_with(*sequences)) == sequences


def test_a_lower_priority_number_goes_first_and_equals_keep_their_order() -> None:
    late, first, second, urgent = (make_sequence(priority=p) for p in (5, 0, 0, -1))
    assert admit_all(scheduler_with(late, first, second, urgent)) == [urgent, first, second, late]


def test_no_more_are_admitted_than_rows_exist() -> None:
    scheduler = scheduler_with(*(make_sequence() for _ in range(5)), num_rows=2)
    assert len(admit_all(scheduler)) == 2
    assert scheduler.num_waiting == 3


def test_the_queue_limit_counts_those_that_truly_wait() -> None:
    scheduler = scheduler_with(num_rows=2, max_waiting=1)
    for _ in range(3):  # two rows are free, one may wait
        assert has_room(scheduler)
        scheduler.add(make_sequence())
    assert not has_room(scheduler)
    admit_all(scheduler)
    assert not has_room(scheduler)
    scheduler.remove(scheduler.running[0])
    assert has_room(scheduler)


def test_no_queue_still_fills_the_rows() -> None:
    scheduler = scheduler_with(num_rows=1, max_waiting=0)
    assert has_room(scheduler)
    scheduler.add(make_sequence())
    assert not has_room(scheduler)


def test_after_a_prefill_the_running_rows_decode() -> None:
    running = make_sequence(range(4))
    scheduler = scheduler_with(running)
    admit_all(scheduler)
    carry_out(scheduler.plan_step(64))
    scheduler.add(make_sequence(range(100)))
    admit_all(scheduler)
    kinds = []
    for _ in range(6):
        plan = scheduler.plan_step(16)
        kinds.append("decode" if plan.decode else "prefill")
        assert not (plan.decode and plan.prefill)
        carry_out(plan)
    assert kinds == ["decode", "prefill", "decode", "prefill", "decode", "prefill"]


def test_with_nobody_decoding_prefill_follows_prefill() -> None:
    sequence = make_sequence(range(50))
    scheduler = scheduler_with(sequence)
    admit_all(scheduler)
    sizes = []
    while sequence.status is SequenceStatus.PREFILL:
        plan = scheduler.plan_step(16)
        sizes += [chunk.num_tokens for chunk in plan.prefill]
        carry_out(plan)
    assert sizes == [16, 16, 16, 2]


def test_short_prompts_share_a_prefill_step() -> None:
    scheduler = scheduler_with(*(make_sequence(range(5)) for _ in range(4)))
    admit_all(scheduler)
    plan = scheduler.plan_step(12)
    assert [chunk.num_tokens for chunk in plan.prefill] == [5, 5, 2]


def test_a_prompt_of_one_token_is_prefilled() -> None:
    scheduler = scheduler_with(make_sequence([3]))
    admit_all(scheduler)
    assert [chunk.num_tokens for chunk in scheduler.plan_step(16).prefill] == [1]


def test_every_decoding_row_is_in_a_decode_step() -> None:
    sequences = [make_sequence(range(4)) for _ in range(3)]
    scheduler = scheduler_with(*sequences)
    admit_all(scheduler)
    carry_out(scheduler.plan_step(64))
    assert scheduler.plan_step(64).decode == tuple(sequences)


def test_nothing_running_plans_nothing() -> None:
    assert scheduler_with().plan_step(64) == StepPlan()


def test_the_newest_gives_way_and_returns_to_its_place() -> None:
    first, second, third = (make_sequence() for _ in range(3))
    later = make_sequence()
    scheduler = scheduler_with(first, second, third, num_rows=3)
    admit_all(scheduler)
    scheduler.add(later)
    victim = scheduler.plan_preemption()
    assert victim is third
    scheduler.preempt(third)
    assert third.status is SequenceStatus.WAITING
    assert admit_all(scheduler) == [third]


def test_priority_decides_who_gives_way() -> None:
    background, urgent = make_sequence(priority=1), make_sequence(priority=-1)
    scheduler = scheduler_with(background, urgent)
    admit_all(scheduler)
    assert scheduler.plan_preemption() is background


def test_one_that_runs_alone_never_gives_way() -> None:
    scheduler = scheduler_with(make_sequence())
    admit_all(scheduler)
    assert scheduler.plan_preemption() is None


@pytest.mark.parametrize("running", [False, True])
def test_removal_finishes_a_sequence_wherever_it_is(running: bool) -> None:
    sequence = make_sequence()
    scheduler = scheduler_with(sequence)
    if running:
        scheduler.admit(sequence)
    scheduler.remove(sequence)
    assert sequence.status is SequenceStatus.FINISHED
    assert scheduler.num_unfinished == 0


def test_an_impossible_move_raises() -> None:
    sequence = make_sequence()
    with pytest.raises(RuntimeError, match="no way from waiting to decode"):
        sequence.move_to(SequenceStatus.DECODE)
    sequence.move_to(SequenceStatus.FINISHED)
    for status in SequenceStatus:
        with pytest.raises(RuntimeError):
            sequence.move_to(status)


arrivals = st.lists(
    st.tuples(
        st.integers(0, 12),  # the step it arrives in
        st.integers(1, 90),  # its prompt's length
        st.integers(1, 12),  # its answer's length
        st.sampled_from([-1, 0, 0, 1]),  # its priority
    ),
    min_size=1,
    max_size=12,
)


@given(arrivals, st.integers(1, 4), st.integers(16, 40))
def test_everything_finishes_within_its_bounds(requests: list[tuple[int, int, int, int]], num_rows: int, budget: int) -> None:
    """Nobody starves, rank, rows and budget hold, and no chunk of a longer prompt is a single token."""
    scheduler = Scheduler(num_rows=num_rows, max_waiting=99)
    requests.sort(key=lambda request: request[0])
    unfinished = [make_sequence(range(size), max_tokens=answer, priority=p) for _, size, answer, p in requests]
    order = {sequence.request: (sequence.priority, i) for i, sequence in enumerate(unfinished)}
    coming = list(zip((at for at, *_ in requests), unfinished, strict=True))
    for step in range(12 + 2 * sum(size + answer for _, size, answer, _ in requests)):
        while coming and coming[0][0] <= step:
            scheduler.add(coming.pop(0)[1])
        while (sequence := scheduler.first_waiting()) is not None:
            waiting = [s for s in unfinished[: len(unfinished) - len(coming)] if s.status is SequenceStatus.WAITING]
            assert order[sequence.request] == min(order[s.request] for s in waiting)
            scheduler.admit(sequence)
        assert len(scheduler.running) <= num_rows
        plan = scheduler.plan_step(budget)
        check_plan(scheduler, plan, budget)
        carry_out(plan)
        for sequence in [s for s in unfinished if s.num_generated >= s.params.max_tokens]:
            scheduler.remove(sequence)
            unfinished.remove(sequence)
    assert not unfinished


def check_plan(scheduler: Scheduler, plan: StepPlan, budget: int) -> None:
    decoding = tuple(s for s in scheduler.running if s.status is SequenceStatus.DECODE)
    assert plan.decode in ((), decoding)
    assert plan.decode or plan.prefill or not scheduler.running
    assert sum(chunk.num_tokens for chunk in plan.prefill) <= budget
    for chunk in plan.prefill:
        left = chunk.sequence.prompt_len - chunk.sequence.num_computed
        assert 0 < chunk.num_tokens <= left
        assert chunk.num_tokens > 1 or chunk.sequence.prompt_len == 1
        assert left - chunk.num_tokens != 1


def test_the_budget_keeps_the_gap_of_running_rows() -> None:
    budget = prefill_budget(gap_s=0.1, decode_s=0.02, token_s=0.001, num_decoding=1, smallest=16, largest=256)
    assert budget == 80


def test_the_budget_is_largest_when_nobody_waits_or_nothing_is_known() -> None:
    assert prefill_budget(gap_s=0.1, decode_s=0.02, token_s=0.01, num_decoding=0, smallest=16, largest=256) == 256
    assert prefill_budget(gap_s=0.1, decode_s=0.02, token_s=0.0, num_decoding=3, smallest=16, largest=256) == 256


@given(*(st.floats(1e-6, 1e3) for _ in range(3)), st.integers(1, 64))
def test_the_budget_stays_within_its_bounds(gap_s: float, decode_s: float, token_s: float, num_decoding: int) -> None:
    budget = prefill_budget(gap_s=gap_s, decode_s=decode_s, token_s=token_s, num_decoding=num_decoding, smallest=16, largest=256)
    assert 16 <= budget <= 256
    if budget > 16:
        assert decode_s + budget * token_s <= gap_s * (1 + 1e-9)
