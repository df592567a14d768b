"""Which models fit beside which: a table for each verdict, and the invariants of all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.pool.capacity import Budget, Demand, Fits, MustEvict, MustWait, NeverFits, Resident, Verdict, plan_room
from runtime.pool.memory import MemoryEstimate

MIB = 1 << 20
BUDGET = Budget(1000 * MIB)


def demand(fixed: int, least: int = 0, most: int = 0, *, replicas: int = 1) -> Demand:
    return Demand("new:1", MemoryEstimate(fixed * MIB, least * MIB, most * MIB), replicas)


def taken(
    label: str, mib: int, last_used: float = 0.0, *, busy: bool = False, pinned: bool = False, leaving: bool = False
) -> Resident:
    return Resident(label, mib * MIB, last_used, busy, pinned, leaving)


@pytest.mark.parametrize(
    ("wants", "residents", "verdict"),
    [
        (demand(100), [], Fits(100 * MIB)),
        (demand(100, 10, 5000), [], Fits(350 * MIB)),  # KV up to a quarter of the budget
        (demand(100, 10, 5000, replicas=2), [], Fits(450 * MIB)),  # shared by its workers
        (demand(100, 10, 400), [taken("a", 800)], Fits(200 * MIB)),  # content with less than 250
        (demand(100, 10, 400), [taken("a", 850)], MustEvict(("a",))),  # 50 is less than a quarter of 250
        (demand(100, 10, 400), [taken("a", 850, busy=True)], Fits(150 * MIB)),  # but more than one row, and nobody can leave
        (demand(400), [taken("old", 400, 1), taken("new", 400, 2)], MustEvict(("old",))),
        (demand(400), [taken("new", 400, 2), taken("old", 400, 1)], MustEvict(("old",))),
        (demand(700), [taken("old", 400, 1), taken("new", 400, 2)], MustEvict(("old", "new"))),
        (demand(400), [taken("old", 400, 1, busy=True), taken("new", 400, 2)], MustEvict(("new",))),
        (demand(400), [taken("old", 400, 1, pinned=True), taken("new", 400, 2)], MustEvict(("new",))),
        (demand(400), [taken("old", 400, 1, leaving=True), taken("new", 400, 2)], MustWait()),
        (demand(700), [taken("old", 400, 1, leaving=True), taken("new", 400, 2)], MustEvict(("new",))),
        (demand(700), [taken("a", 400, 2, busy=True), taken("b", 400, 1, busy=True)], MustWait(("b", "a"))),
        (demand(400), [taken("a", 400, 2, busy=True), taken("b", 400, 1, busy=True)], MustWait(("b",))),
        (demand(400), [taken("a", 700, 1, busy=True), taken("b", 200, 2)], MustWait(("a",))),
        (demand(700), [taken("a", 400, 1, busy=True, leaving=True), taken("b", 400, 2, busy=True)], MustWait(("b",))),
        (demand(400), [taken("a", 700, 1, busy=True, leaving=True)], MustWait()),
        (demand(100, 10, 400), [taken("a", 850, busy=True, leaving=True)], Fits(150 * MIB)),  # its requests may take long
        (demand(100, 10, 400), [taken("a", 850, leaving=True)], MustWait()),  # it is gone soon
    ],
)
def test_the_verdict(wants: Demand, residents: list[Resident], verdict: Verdict) -> None:
    assert plan_room(wants, residents, BUDGET) == verdict


@pytest.mark.parametrize(
    ("residents", "verdict"),
    [
        ([taken("a", 1, 1)], Fits(1 * MIB)),
        ([taken("a", 1, 1), taken("b", 1, 2)], MustEvict(("a",))),
        ([taken("a", 1, 1, busy=True), taken("b", 1, 2, busy=True)], MustWait(("a",))),
        ([taken("a", 1, 1, leaving=True), taken("b", 1, 2)], MustWait()),
    ],
)
def test_no_more_models_than_allowed(residents: list[Resident], verdict: Verdict) -> None:
    assert plan_room(demand(1), residents, replace(BUDGET, max_models=2)) == verdict


def test_what_never_fits_is_reported_with_the_arithmetic() -> None:
    residents = [taken("kept:1", 600, pinned=True), taken("other:1", 300)]
    verdict = plan_room(demand(300, 150, 900, replicas=1), residents, BUDGET)
    assert verdict == NeverFits(
        "new:1 needs 450 MiB = (300 MiB for weights and work + 150 MiB for one row of KV); of the memory budget of 1,000 MiB, "
        "400 MiB are free beside kept:1 600 MiB (pinned)"
    )


def test_pinned_models_may_be_as_many_as_allowed() -> None:
    verdict = plan_room(demand(1), [taken("kept:1", 1, pinned=True)], replace(BUDGET, max_models=1))
    assert isinstance(verdict, NeverFits)
    assert verdict.arithmetic.endswith("; 1 of at most 1 models are loaded (max_loaded_models)")


residents_of = st.lists(
    st.builds(
        Resident,
        st.just(""),
        st.integers(0, 60).map(lambda mib: mib * MIB),
        st.integers(0, 9).map(float),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    max_size=6,
).map(lambda residents: [replace(each, label=f"r{n}") for n, each in enumerate(residents)])
estimates = st.tuples(st.integers(1, 60), st.integers(0, 20), st.integers(0, 60)).map(
    lambda sizes: MemoryEstimate(sizes[0] * MIB, sizes[1] * MIB, (sizes[1] + sizes[2]) * MIB)
)
demands = st.builds(Demand, st.just("new:1"), estimates, st.integers(1, 3))
budgets = st.builds(Budget, st.integers(1, 200).map(lambda mib: mib * MIB), st.none() | st.integers(1, 5))


def has_room(wants: Demand, residents: list[Resident], budget: Budget) -> bool:
    held = sum(each.charge_bytes for each in residents)
    return held + wants.needed_bytes <= budget.memory_bytes and (budget.max_models is None or len(residents) < budget.max_models)


@given(demands, residents_of, budgets)
def test_what_fits_stays_within_the_budget_and_has_what_it_needs(wants: Demand, residents: list[Resident], budget: Budget) -> None:
    verdict = plan_room(wants, residents, budget)
    if isinstance(verdict, Fits):
        assert verdict.charge_bytes >= wants.needed_bytes
        assert verdict.charge_bytes <= wants.replicas * (wants.memory.fixed_bytes + wants.memory.most_kv_bytes)
        assert sum(each.charge_bytes for each in residents) + verdict.charge_bytes <= budget.memory_bytes
        assert budget.max_models is None or len(residents) < budget.max_models


@given(demands, residents_of, budgets)
def test_only_the_idle_are_evicted_the_least_recently_used_first_and_it_helps(
    wants: Demand, residents: list[Resident], budget: Budget
) -> None:
    verdict = plan_room(wants, residents, budget)
    if isinstance(verdict, MustEvict):
        evicted = [each for each in residents if each.label in verdict.labels]
        kept = [each for each in residents if each.label not in verdict.labels]
        may_leave = [each for each in residents if not (each.is_busy or each.is_pinned or each.is_leaving)]
        assert evicted
        assert all(each in may_leave for each in evicted)
        spared = [each.last_used for each in may_leave if each not in evicted]
        assert max(each.last_used for each in evicted) <= min(spared, default=float("inf"))
        assert has_room(wants, [each for each in kept if not each.is_leaving or each.is_busy], budget)


@given(demands, residents_of, budgets)
def test_never_means_never(wants: Demand, residents: list[Resident], budget: Budget) -> None:
    """With everything gone but what is pinned, it would not fit; else it would."""
    pinned = [each for each in residents if each.is_pinned and not each.is_leaving]
    never = isinstance(plan_room(wants, residents, budget), NeverFits)
    assert never is not has_room(wants, pinned, budget)


@given(demands, residents_of, budgets)
def test_who_must_wait_waits_for_those_that_work_and_no_more_than_needed(
    wants: Demand, residents: list[Resident], budget: Budget
) -> None:
    verdict = plan_room(wants, residents, budget)
    if isinstance(verdict, MustWait):
        waited_for = [each for each in residents if each.label in verdict.busy]
        assert all(each.is_busy and not each.is_pinned and not each.is_leaving for each in waited_for)
        staying = [each for each in residents if not each.is_leaving and (each.is_busy or each.is_pinned)]
        assert has_room(wants, [each for each in staying if each not in waited_for], budget)
        if waited_for:
            last = max(waited_for, key=lambda each: each.last_used)
            assert not has_room(wants, [each for each in staying if each not in waited_for or each is last], budget)


@given(demands, residents_of, budgets)
def test_it_ends(wants: Demand, residents: list[Resident], budget: Budget) -> None:
    """Following the verdicts repeatedly makes room in the end, and never evicts a pinned model."""
    for _ in range(2 * len(residents) + 1):
        match plan_room(wants, residents, budget):
            case MustEvict(labels=labels):
                residents = [each for each in residents if each.label not in labels]
            case MustWait(busy=busy):
                residents = [
                    replace(each, is_busy=each.is_busy and each.label not in busy) for each in residents if not each.is_leaving
                ]
            case _:
                break
    else:
        pytest.fail("it goes on for ever")
