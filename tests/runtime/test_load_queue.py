"""Which loads wait for room, in which order, and which make way for which: with a fake pool."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from runtime.pool import load_queue
from runtime.pool.capacity import Fits, MustEvict, MustWait, NeverFits, Verdict
from runtime.pool.load_queue import LoadQueue
from runtime.pool.loaded_model import Candidate, LoadSpec
from runtime.pool.memory import MemoryEstimate
from runtime.pool.resident_model import ResidentModel
from runtime.protocol.errors import NotReady
from tests.doubles.event_loops import run
from tests.doubles.scripted_workers import settle


def spec_of(label: str, replicas: int = 1) -> LoadSpec:
    return LoadSpec(label, (Candidate(Path(), "fake", MemoryEstimate(1)),), replicas=replicas)


class Room:
    """verdicts: the results of `plan` by label; Fits for the others."""

    def __init__(self) -> None:
        self.models: dict[str, ResidentModel] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.broken: dict[str, NotReady] = {}
        self.begun: list[LoadSpec] = []
        self.evicted: list[str] = []
        self.queue = LoadQueue(self)
        self.looked = asyncio.Event()

    def find(self, label: str) -> ResidentModel | None:
        return self.models.get(label)

    def why_not(self, label: str) -> NotReady | None:
        return self.broken.get(label)

    def plan(self, spec: LoadSpec) -> Verdict:
        self.looked.set()
        return self.verdicts.get(spec.label, Fits(1))

    def begin_load(self, spec: LoadSpec, charge_bytes: int) -> ResidentModel:
        self.begun.append(spec)
        return self.add(spec.label)

    def evict(self, label: str) -> None:
        self.evicted.append(label)
        del self.models[label]

    def no_room(self, spec: LoadSpec) -> NotReady:
        return NotReady(f"no room for {spec.label}")

    def add(self, label: str, *, loaded_s_ago: float = 0.0) -> ResidentModel:
        model = cast(ResidentModel, SimpleNamespace(label=label, loaded_at=time.time() - loaded_s_ago))
        self.models[label] = model
        return model

    async def makes_way(self, label: str) -> bool:
        try:
            await self.queue.place(spec_of(label), 0.0)
        except NotReady:
            return True
        return False

    async def send(self, *labels: str, timeout_s: float = 60.0, principal: str = "") -> list[asyncio.Task[ResidentModel]]:
        deadline = time.monotonic() + timeout_s
        return await settle(*(self.queue.place(spec_of(label), deadline, principal) for label in labels))


def test_what_is_loaded_is_found_and_what_fits_is_begun_at_once() -> None:
    async def scenario() -> None:
        room = Room()
        model = room.add("a:1")
        assert await room.queue.place(spec_of("a:1"), 0.0) is model
        placed = await room.queue.place(spec_of("b:1"), 0.0)  # even without time to wait
        assert placed is room.models["b:1"]
        assert [spec.label for spec in room.begun] == ["b:1"]

    run(scenario)


def test_one_load_for_all_requests() -> None:
    async def scenario() -> None:
        room = Room()
        room.verdicts["a:1"] = MustWait()
        requested = await room.send("a:1", "a:1", "a:1")
        assert room.queue.labels == ("a:1",)
        del room.verdicts["a:1"]
        room.queue.look()
        assert {id(await each) for each in requested} == {id(room.models["a:1"])}
        assert len(room.begun) == 1
        assert not room.queue.labels

    run(scenario)


def test_first_come_first_served_though_the_second_would_fit() -> None:
    async def scenario() -> None:
        room = Room()
        room.verdicts["a:1"] = MustWait()
        first, second = await room.send("a:1", "b:1")
        assert not second.done()
        room.verdicts.clear()
        room.queue.look()
        await asyncio.gather(first, second)
        assert [spec.label for spec in room.begun] == ["a:1", "b:1"]

    run(scenario)


def test_idle_models_are_evicted_and_then_it_is_looked_again() -> None:
    async def scenario() -> None:
        room = Room()
        room.add("idle:1")
        room.verdicts["a:1"] = MustEvict(("idle:1",))
        (requested,) = await room.send("a:1")
        assert room.evicted == ["idle:1"]
        assert not requested.done()
        del room.verdicts["a:1"]
        room.queue.look()
        assert await requested is room.models["a:1"]

    run(scenario)


def test_what_never_fits_is_refused_and_those_behind_it_go_on() -> None:
    async def scenario() -> None:
        room = Room()
        room.verdicts |= {"a:1": MustWait(), "b:1": NeverFits("b:1 needs more than there is")}
        first, second, third = await room.send("a:1", "b:1", "c:1")
        del room.verdicts["a:1"]
        room.queue.look()
        with pytest.raises(NotReady, match="needs more than there is") as caught:
            await second
        assert caught.value.code == "insufficient_memory"
        assert [(await each).label for each in (first, third)] == ["a:1", "c:1"]

    run(scenario)


def test_what_broke_while_it_waited_is_refused() -> None:
    async def scenario() -> None:
        room = Room()
        room.verdicts["a:1"] = MustWait()
        (requested,) = await room.send("a:1")
        room.broken["a:1"] = NotReady("it failed 5 times in a row")
        del room.verdicts["a:1"]
        room.queue.look()
        with pytest.raises(NotReady, match="5 times"):
            await requested
        assert room.begun == []

    run(scenario)


@pytest.mark.parametrize("case", ["by time", "by leaving"])
def test_who_gives_up_makes_way_for_the_next(case: str) -> None:
    async def scenario() -> None:
        room = Room()
        room.verdicts["a:1"] = MustWait()
        (patient,) = await room.send("a:1")
        (second,) = await room.send("b:1")
        if case == "by leaving":
            patient.cancel()
        else:
            (impatient,) = await room.send("a:1", timeout_s=0.0)
            with pytest.raises(NotReady, match="no room for a:1"):
                await impatient
            await settle()
            assert not second.done(), "somebody still waits for the first"
            patient.cancel()
        assert (await second).label == "b:1"
        assert room.queue.labels == ()

    run(scenario)


def test_a_busy_model_that_has_had_its_turn_takes_nothing_new_until_the_other_has_its_room() -> None:
    async def scenario() -> None:
        room = Room()
        busy = room.add("busy:1", loaded_s_ago=60)
        room.verdicts["a:1"] = MustWait(("busy:1",))
        (waiting,) = await room.send("a:1")
        (late,) = await room.send("busy:1")
        assert room.queue.labels == ("a:1", "busy:1")
        room.evict("busy:1")  # it became idle, and left
        del room.verdicts["a:1"]
        room.verdicts["busy:1"] = MustWait(("a:1",))
        room.queue.look()
        assert (await waiting).label == "a:1"
        assert not late.done()
        del room.verdicts["busy:1"]
        room.queue.look()
        again = await late
        assert again.label == "busy:1"
        assert again is not busy

    run(scenario)


def test_those_who_waited_for_a_model_that_made_way_for_nothing_get_it() -> None:
    async def scenario() -> None:
        room = Room()
        busy = room.add("busy:1", loaded_s_ago=60)
        room.verdicts["a:1"] = MustWait(("busy:1",))
        (waiting,) = await room.send("a:1")
        (late,) = await room.send("busy:1")
        waiting.cancel()
        assert await late is busy

    run(scenario)


def test_a_model_that_has_just_loaded_has_its_turn_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue notices by itself that the turn is over."""

    async def scenario() -> None:
        room = Room()
        room.add("new:1")
        room.add("newer:1", loaded_s_ago=-3600)
        room.verdicts["a:1"] = MustWait(("new:1", "newer:1"))
        await room.send("a:1")
        assert not await room.makes_way("new:1")
        while not await room.makes_way("new:1"):
            await room.looked.wait()
            room.looked.clear()
        assert not await room.makes_way("newer:1")

    monkeypatch.setattr(load_queue, "TURN_S", 0.05)
    run(scenario)


def test_a_model_that_loads_is_not_evicted() -> None:
    async def scenario() -> None:
        room = Room()
        loading = cast(ResidentModel, SimpleNamespace(label="loading:1", loaded_at=None))
        room.models["loading:1"] = loading
        room.verdicts["a:1"] = MustWait(("loading:1",))
        await room.send("a:1")
        assert await room.queue.place(spec_of("loading:1"), 0.0) is loading

    run(scenario)


def test_a_load_that_waits_may_be_made_otherwise() -> None:
    async def scenario() -> None:
        room = Room()
        room.verdicts["a:1"] = MustWait()
        (requested,) = await room.send("a:1")
        room.queue.respecify(spec_of("a:1", replicas=2))
        room.queue.respecify(spec_of("unheard-of:1"))
        del room.verdicts["a:1"]
        room.queue.look()
        await requested
        assert [spec.replicas for spec in room.begun] == [2]

    run(scenario)


def test_who_is_refused_in_the_moment_of_leaving_leaves_no_failure_behind(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        room = Room()
        room.verdicts["a:1"] = MustWait()
        (requested,) = await room.send("a:1")
        requested.cancel()
        room.queue.fail_all(NotReady("shutting down"))
        with pytest.raises(asyncio.CancelledError):
            await requested
        assert room.queue.labels == ()

    run(scenario)
    assert caplog.records == []


def test_a_caller_of_many_models_delays_anothers_load_by_one_at_most() -> None:
    async def scenario() -> None:
        room = Room()
        many = [f"m{number}:1" for number in range(50)]
        room.verdicts |= dict.fromkeys([*many, "other:1"], MustWait())
        flood = await room.send(*many, principal="flood")
        del room.verdicts[many[0]]
        room.queue.look()
        assert [spec.label for spec in room.begun] == [many[0]]
        (other,) = await room.send("other:1", principal="other")
        assert room.queue.labels == ("other:1", *many[1:])
        room.verdicts.clear()
        room.queue.look()
        await asyncio.gather(other, *flood)
        assert [spec.label for spec in room.begun] == [many[0], "other:1", *many[1:]]

    run(scenario)
