"""What models are charged: reserved before they load, measured afterwards, remembered when they are gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.pool.breaker import Breaker
from runtime.pool.capacity import Budget, Fits, MustEvict, NeverFits, Resident
from runtime.pool.ledger import Ledger, resident
from runtime.pool.loaded_model import Candidate, LoadSpec, UnloadReason
from runtime.pool.memory import MemoryEstimate
from runtime.pool.resident_model import ResidentModel
from runtime.protocol.errors import NotReady
from runtime.protocol.messages import Stats
from tests.doubles.event_loops import run
from tests.doubles.fake_worker import FakeWorkers
from tests.doubles.scripted_workers import ScriptedOwner, settle

MIB = 1 << 20
BUDGET = Budget(1000 * MIB, max_models=2)
STATS = Stats(
    num_running=0,
    num_waiting=0,
    kv_usage=0.0,
    kv_bytes=40 * MIB,
    prefix_queries_total=0,
    prefix_hits_total=0,
    preemptions_total=0,
    steps_total=0,
    resident_bytes=190 * MIB,
)


def candidate(folder: str, fixed: int, least: int = 10, most: int = 100) -> Candidate:
    return Candidate(Path(folder), "fake", MemoryEstimate(fixed * MIB, least * MIB, most * MIB))


SMALL, LARGE, HUGE = candidate("small", 100), candidate("large", 300), candidate("huge", 2000)


class Bench:
    """A model that a ledger's verdict has made room for."""

    def __init__(self, *candidates: Candidate, replicas: int = 1, charge: int = 0) -> None:
        self.started = FakeWorkers()
        self.spec = LoadSpec("some:1", candidates, replicas=replicas)
        self.model = ResidentModel(self.spec, self.started, Breaker("some:1"), ScriptedOwner())
        self.model.charge_bytes = charge * MIB

    async def load(self, *resident_mib: int) -> None:
        """With workers that take so much."""
        self.model.begin_load()
        await self.model.ready()
        await settle()
        for worker, mib in zip(self.started.workers, resident_mib, strict=True):
            worker.stats = replace_stats(mib)


def replace_stats(resident_mib: int) -> Stats:
    return Stats(**{name: getattr(STATS, name) for name in STATS.__struct_fields__} | {"resident_bytes": resident_mib * MIB})


def test_room_is_made_for_the_largest_candidate_that_can_ever_fit() -> None:
    ledger = Ledger(BUDGET)
    assert ledger.plan(Bench(SMALL, HUGE, LARGE).spec, []) == Fits(400 * MIB)
    assert isinstance(ledger.plan(Bench(HUGE).spec, []), NeverFits)


def test_a_replacement_is_not_one_model_more() -> None:
    ledger, spec = Ledger(BUDGET), Bench(SMALL).spec
    loaded = [Resident("some:1", 100 * MIB), Resident("other:1", 100 * MIB, last_used=1.0)]
    assert ledger.plan(spec, loaded) == MustEvict(("some:1",))
    assert ledger.plan(spec, loaded, replaces=True) == Fits(200 * MIB)


def test_each_worker_may_use_what_is_reserved_beyond_its_weights() -> None:
    ledger = Ledger(BUDGET)
    assert ledger.grant(Bench(SMALL, replicas=2, charge=300).model, SMALL) == 50 * MIB
    assert ledger.grant(Bench(SMALL, charge=900).model, SMALL) == 100 * MIB  # all that it can use
    assert ledger.grant(Bench(SMALL, charge=110).model, SMALL) == 10 * MIB


def test_memory_that_is_not_of_this_machine_is_not_bounded_here() -> None:
    elsewhere = candidate("elsewhere", 100, least=0, most=0)
    assert Ledger(BUDGET).grant(Bench(elsewhere, charge=100).model, elsewhere) is None


def test_a_candidate_that_is_larger_than_what_was_reserved_is_refused_with_the_arithmetic() -> None:
    bench = Bench(SMALL, HUGE, charge=200)
    with pytest.raises(NotReady, match=r"some:1 needs 2,010 MiB = .* budget of 1,000 MiB.*Raise memory_budget") as caught:
        Ledger(BUDGET).grant(bench.model, HUGE)
    assert caught.value.code == "insufficient_memory"


def test_what_was_measured_corrects_the_charge_and_is_remembered() -> None:
    async def scenario() -> None:
        ledger, bench = Ledger(BUDGET), Bench(SMALL, replicas=2, charge=400)
        ledger.grant(bench.model, SMALL)
        await bench.load(190, 160)
        ledger.measure(bench.model)
        assert bench.model.charge_bytes == 2 * (150 + 100) * MIB  # the larger without its KV, and the KV that was granted
        for worker in bench.started.workers:
            worker.stats = replace_stats(100)
        ledger.measure(bench.model)
        assert bench.model.charge_bytes == 2 * (150 + 100) * MIB, "what it took once, it may take again"
        assert ledger.plan(bench.spec, []) == Fits(2 * (150 + 100) * MIB)
        assert ledger.plan(replace(bench.spec, candidates=(LARGE,)), []) == Fits(2 * (300 + 100) * MIB)
        by_another = replace(SMALL, engine="genai")
        assert ledger.plan(replace(bench.spec, candidates=(by_another,)), []) == Fits(2 * (100 + 100) * MIB)

    run(scenario)


def test_a_model_keeps_its_reservation_while_it_loads_and_gives_up_the_rest_then() -> None:
    async def scenario() -> None:
        ledger, bench = Ledger(BUDGET), Bench(SMALL, LARGE, charge=400)
        ledger.grant(bench.model, SMALL)
        ledger.measure(bench.model)
        assert bench.model.charge_bytes == 400 * MIB
        await bench.load(140)
        ledger.measure(bench.model)
        assert bench.model.charge_bytes == 200 * MIB

    run(scenario)


def test_who_is_busy_who_stays_and_who_goes() -> None:
    async def scenario() -> None:
        bench = Bench(SMALL)
        await bench.load(140)
        bench.model.pin(True)
        seen = [resident(bench.model), resident(bench.model, is_arriving=True)]
        assert [(each.is_busy, each.is_pinned, each.is_leaving) for each in seen] == [(False, True, False), (True, False, False)]
        bench.model.hold()
        assert resident(bench.model).is_busy
        bench.model.leave(UnloadReason.REQUESTED)
        left = resident(bench.model)
        assert (left.is_busy, left.is_leaving) == (True, True)
        bench.model.release()
        assert not resident(bench.model).is_busy

    run(scenario)
