"""One model with its replicas: which candidate loads, who serves, how long it stays. With workers without processes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from runtime.pool.breaker import Breaker
from runtime.pool.generation import Generation
from runtime.pool.loaded_model import FOREVER, Candidate, FellThrough, Loaded, LoadSpec, ModelState, UnloadReason
from runtime.pool.memory import MemoryEstimate
from runtime.pool.resident_model import ResidentModel
from runtime.pool.routing import MOST_IMBALANCE
from runtime.protocol.errors import EngineDead, NotReady
from runtime.protocol.messages import Detokenize, Submit
from runtime.protocol.request import TextPrompt
from tests.doubles.event_loops import run
from tests.doubles.fake_worker import FakeWorker, FakeWorkers, Start
from tests.doubles.pool_bench import text_of
from tests.doubles.scripted_workers import ScriptedOwner, settle

LEAVING = NotReady("leaving")


class Bench:
    """script: of the workers, one after the other. refused: folders for which there is no room."""

    def __init__(
        self,
        *script: Start,
        folders: Sequence[str] = ("a",),
        refused: Sequence[str] = (),
        replicas: int = 1,
        keep_alive_s: float = FOREVER,
        pinned: bool = False,
    ) -> None:
        candidates = tuple(Candidate(Path(folder), "fake", MemoryEstimate(1)) for folder in folders)
        spec = LoadSpec("some:1", candidates, replicas=replicas, keep_alive_s=keep_alive_s, pinned=pinned)
        self.started, self.owner = FakeWorkers(script), ScriptedOwner(refused)
        self.model = ResidentModel(spec, self.started, Breaker("some:1"), self.owner)
        self.model.begin_load()

    @property
    def workers(self) -> list[FakeWorker]:
        return self.started.workers

    def send(self, text: str) -> int:
        """Submits it without an end. Which worker took it."""
        before = [len(worker.submitted) for worker in self.workers]
        self.submit(text + "[[endless]]")
        (taken,) = [i for i, worker in enumerate(self.workers) if len(worker.submitted) > before[i]]
        return taken

    def submit(self, text: str) -> Generation:
        return self.model.submit(Submit(request=self.model.new_request_id(), prompt=TextPrompt(text=f"{text}<|assistant|>")))

    async def inquire(self) -> None:
        await self.model.inquire(Detokenize(request=self.model.new_request_id(), token_ids=[]))

    async def crash(self, *workers: int) -> None:
        """These workers end at once; returns when that has been noticed."""
        for worker in workers:
            self.workers[worker].die()
        for worker in workers:
            await self.workers[worker].wait_exit()


# ---- the load ----


def test_the_next_candidate_is_tried_when_one_cannot_load() -> None:
    async def scenario() -> None:
        bench = Bench(Start(fails="no such device"), folders=("a", "b", "c"))
        assert await bench.model.ready() == bench.workers[0].info
        view = bench.model.view()
        assert view.candidate is not None
        assert view.candidate.folder == Path("b")
        assert [(str(each.candidate.folder), each.why) for each in view.fallbacks] == [("a", "no such device")]
        fell, loaded = bench.owner.events
        assert isinstance(fell, FellThrough)
        assert isinstance(loaded, Loaded)
        assert loaded.candidate.folder == Path("b")

    run(scenario)


def test_a_candidate_without_room_is_passed_over() -> None:
    async def scenario() -> None:
        bench = Bench(folders=("a", "b"), refused=("a",))
        await bench.model.ready()
        (fallback,) = bench.model.view().fallbacks
        assert fallback.why == "no room"
        assert len(bench.workers) == 1

    run(scenario)


def test_when_none_can_load_everyone_gets_the_last_reason() -> None:
    async def scenario() -> None:
        bench = Bench(Start(fails="no such device"), Start(fails="bad file"), folders=("a", "b"))
        waiting = await settle(*(bench.model.ready() for _ in range(3)))
        for each in waiting:
            with pytest.raises(NotReady, match="bad file"):
                await each
        assert bench.owner.failures == ["bad file"]
        assert bench.model.view().fallbacks[0].why == "no such device"

    run(scenario)


def test_who_leaves_while_it_loads_does_not_stop_it() -> None:
    async def scenario() -> None:
        may_load = asyncio.Event()
        bench = Bench(Start(may_load=may_load))
        impatient, patient = await settle(bench.model.ready(), bench.model.ready())
        impatient.cancel()
        await settle()
        may_load.set()
        assert await patient == bench.workers[0].info

    run(scenario)


@pytest.mark.parametrize("unload_reason", [UnloadReason.REQUESTED, UnloadReason.REPLACED])
def test_leaving_while_it_loads_fails_those_who_wait_and_ends_the_worker(unload_reason: UnloadReason) -> None:
    async def scenario() -> None:
        bench = Bench(Start(may_load=asyncio.Event()))
        (waiting,) = await settle(bench.model.ready())
        bench.model.leave(unload_reason)
        await bench.model.unload(0.0, LEAVING)
        with pytest.raises(NotReady, match="being unloaded"):
            await waiting
        assert bench.owner.failures == []
        assert bench.model.state is ModelState.UNLOADING

    run(scenario)


# ---- replicas ----


def test_the_first_replica_serves_while_the_others_load() -> None:
    async def scenario() -> None:
        may_load = asyncio.Event()
        bench = Bench(Start(), Start(may_load=may_load), replicas=2)
        await bench.model.ready()
        await settle()
        assert [replica.state for replica in bench.model.replicas] == [ModelState.READY, ModelState.LOADING]
        assert bench.send("hello") == 0
        may_load.set()
        await settle()
        assert bench.send("hello") == 1  # which has less to do
        assert sum(isinstance(event, Loaded) for event in bench.owner.events) == 1

    run(scenario)


def test_a_request_goes_where_its_beginning_was_computed_unless_that_is_too_busy() -> None:
    async def scenario() -> None:
        bench = Bench(replicas=2)
        await bench.model.ready()
        await settle()
        long = "A long introduction that many requests share. " * 20
        assert bench.send(long + "one") == 0
        assert bench.send("Something else. " * 40) == 1
        assert bench.send(long + "two") == 0
        while bench.workers[0].num_open - bench.workers[1].num_open <= MOST_IMBALANCE:
            assert bench.send(long + "more") == 0
        assert bench.send(long + "last") == 1

    run(scenario)


def test_the_replica_with_the_least_to_do_is_queried_about_tokens() -> None:
    async def scenario() -> None:
        bench = Bench(replicas=2)
        await bench.model.ready()
        await settle()
        assert bench.send("hello") == 0
        await bench.inquire()
        assert [len(worker.inquired) for worker in bench.workers] == [0, 1]
        bench.model.leave(UnloadReason.REQUESTED)
        await bench.model.unload(0.0, LEAVING)
        with pytest.raises(NotReady, match="being unloaded"):
            await bench.inquire()

    run(scenario)


def test_a_dead_replica_is_avoided_and_comes_back() -> None:
    async def scenario() -> None:
        may_load = asyncio.Event()
        bench = Bench(Start(), Start(), Start(may_load=may_load), replicas=2)
        await bench.model.ready()
        await settle()
        await bench.crash(0)
        assert bench.model.state is ModelState.READY
        assert [bench.send("hello") for _ in range(3)] == [1, 1, 1]
        assert await bench.model.ready() == bench.workers[1].info  # at once: the other one serves
        may_load.set()
        await settle()
        assert bench.send("hello") == 2

    run(scenario)


def test_with_every_replica_down_the_first_that_is_back_serves() -> None:
    async def scenario() -> None:
        may_load = asyncio.Event()
        restarts = [Start(may_load=asyncio.Event()), Start(may_load=may_load)]
        bench = Bench(Start(), Start(), *restarts, replicas=2)
        await bench.model.ready()
        await settle()
        await bench.crash(0, 1)
        assert bench.model.state is ModelState.RESTARTING
        with pytest.raises(EngineDead, match="being restarted"):
            bench.send("hello")
        (waiting,) = await settle(bench.model.ready())
        may_load.set()
        assert await waiting == bench.workers[2].info
        assert bench.send("hello") == 2
        bench.model.leave(UnloadReason.REQUESTED)
        await bench.model.unload(0.0, LEAVING)

    run(scenario)


def test_a_replica_lost_for_good_leaves_the_others_and_the_last_takes_the_model_with_it() -> None:
    async def scenario() -> None:
        bench = Bench(Start(), Start(), Start(fails="broken disk"), Start(fails="no disk"), replicas=2)
        await bench.model.ready()
        await settle()
        await bench.crash(0)
        await settle()
        assert len(bench.model.replicas) == 1
        assert bench.owner.failures == []
        assert bench.send("hello") == 1
        assert await text_of(bench.submit("Hello")) == "You said: Hello"
        await bench.crash(1)
        waiting = await settle(bench.model.ready(), bench.model.ready())
        assert bench.owner.failures == ["no disk"]
        for each in waiting:
            with pytest.raises(NotReady, match="no disk"):
                await each
        with pytest.raises(NotReady, match="no disk"):
            bench.send("with a lease from before")

    run(scenario)


# ---- how long it stays ----


def test_leases_report_since_when_they_are_idle() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.model.ready()
        await settle()
        assert bench.model.view().idle_since is not None
        bench.model.hold()
        bench.model.hold()
        bench.model.release()
        assert (bench.model.view().idle_since, bench.model.view().num_leases) == (None, 1)
        bench.model.release()
        assert bench.model.view().idle_since is not None
        assert not bench.model.is_busy

    run(scenario)


def test_without_a_keep_alive_it_expires_as_soon_as_it_is_idle() -> None:
    async def scenario() -> None:
        bench = Bench(keep_alive_s=0)
        bench.model.hold()
        await bench.model.ready()
        await settle()
        assert bench.owner.expiries.empty()
        bench.model.release()
        assert await bench.owner.expiries.get() is bench.model

    run(scenario)


def test_a_load_that_nobody_waits_for_any_more_expires_too() -> None:
    async def scenario() -> None:
        bench = Bench(keep_alive_s=0)
        assert await bench.owner.expiries.get() is bench.model

    run(scenario)


@pytest.mark.parametrize(
    ("keep_alive_s", "pinned", "expires"), [(600.0, False, True), (FOREVER, False, False), (600.0, True, False)]
)
def test_when_it_expires_is_reported_only_while_it_is_idle(keep_alive_s: float, pinned: bool, expires: bool) -> None:
    async def scenario() -> None:
        bench = Bench(keep_alive_s=keep_alive_s, pinned=pinned)
        await bench.model.ready()
        await settle()
        idle_since, expires_at = bench.model.view().idle_since, bench.model.view().expires_at
        assert idle_since is not None
        if expires:
            assert expires_at == pytest.approx(idle_since + keep_alive_s, abs=1)
        else:
            assert expires_at is None
        bench.model.hold()
        assert bench.model.view().expires_at is None
        bench.model.release()
        assert (bench.model.view().expires_at is not None) is expires

    run(scenario)


def test_a_keep_alive_changed_while_idle_counts_from_now() -> None:
    async def scenario() -> None:
        bench = Bench(keep_alive_s=600)
        await bench.model.ready()
        await settle()
        bench.model.keep(FOREVER)
        assert bench.model.view().expires_at is None
        bench.model.keep(0)
        assert await bench.owner.expiries.get() is bench.model

    run(scenario)


def test_a_keep_alive_changed_while_busy_counts_once_idle() -> None:
    async def scenario() -> None:
        bench = Bench(keep_alive_s=600)
        bench.model.hold()
        await bench.model.ready()
        bench.model.keep(0)
        await settle()
        assert bench.owner.expiries.empty()
        assert bench.model.view().expires_at is None
        bench.model.release()
        assert await bench.owner.expiries.get() is bench.model

    run(scenario)


def test_an_unpinned_model_may_expire() -> None:
    async def scenario() -> None:
        bench = Bench(keep_alive_s=0, pinned=True)
        await bench.model.ready()
        await settle()
        assert bench.owner.expiries.empty()
        bench.model.pin(False)
        assert await bench.owner.expiries.get() is bench.model

    run(scenario)


# ---- the end ----


def test_an_unload_once_idle_waits_for_the_leases() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.model.hold()
        await bench.model.ready()
        bench.model.leave(UnloadReason.REPLACED)
        (unload,) = await settle(bench.model.unload(60.0, LEAVING, once_idle=True))
        assert await text_of(bench.submit("leased before")) == "You said: leased before"
        assert bench.workers[0].calls == []
        bench.model.release()
        await unload
        assert bench.workers[0].calls == ["drain"]

    run(scenario)


@pytest.mark.parametrize("hurried", [False, True], ids=["it takes too long", "somebody is in a hurry"])
def test_leases_are_not_waited_for_beyond_the_grace(hurried: bool) -> None:
    async def scenario() -> None:
        bench = Bench(Start(lingers=True))
        bench.model.hold()
        await bench.model.ready()
        bench.model.leave(UnloadReason.REPLACED)
        (unload,) = await settle(bench.model.unload(60.0 if hurried else 0.0, LEAVING, once_idle=True))
        if hurried:
            await bench.model.unload(0.0, NotReady("closing"))
        await unload
        assert bench.workers[0].calls[-1] == "kill"
        with pytest.raises(NotReady, match="being unloaded"):
            bench.send("too late")

    run(scenario)


def test_what_left_does_not_come_back_when_its_last_lease_ends() -> None:
    async def scenario() -> None:
        bench = Bench(keep_alive_s=0)
        bench.model.hold()
        await bench.model.ready()
        bench.model.leave(UnloadReason.REQUESTED)
        await bench.model.unload(0.0, LEAVING)
        num_changes = bench.owner.num_changes
        bench.model.release()
        await settle()
        assert bench.owner.expiries.empty()
        assert bench.owner.num_changes == num_changes

    run(scenario)
