"""One model through loads, crashes and the end, with workers that exist only here and a clock that nobody waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from event_loops import run

from runtime import resident_model
from runtime.errors import EngineDead, NotReady
from runtime.messages import ModelInfo, Stats
from runtime.resident_model import RESTART_DELAYS_S, STEADY_S, ModelState, ResidentModel

INFO = ModelInfo(
    engine="none",
    provider="none",
    architecture="none",
    context_length=1,
    vocab_size=1,
    num_slots=1,
    threads=1,
    kv_bytes_per_token=1,
    has_chat_template=False,
    load_s=0.0,
    resident_bytes=0,
    pid=0,
)


class Worker:
    """What `ResidentModel` uses of a WorkerProcess. fails: it cannot load."""

    def __init__(self, *, fails: bool = False) -> None:
        self._fails = fails
        self.pid = 1
        self.stats: Stats | None = None
        self.exited = asyncio.Event()
        self.on_exit: Callable[[Worker], None] = lambda _: None
        self.calls: list[str] = []

    async def wait_ready(self) -> ModelInfo:
        if self._fails:
            raise NotReady("cannot load")
        return INFO

    async def reap(self) -> None:
        await self.exited.wait()

    def drain(self) -> None:
        self.calls.append("drain")

    def kill(self) -> None:
        self.calls.append("kill")
        self.exited.set()

    def fail_open(self, failure: NotReady) -> None:
        self.calls.append("fail_open")

    def die(self) -> None:
        self.exited.set()
        self.on_exit(self)


class Fleet:
    """Spawns workers; remembers them and the delays before them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.workers: list[Worker] = []
        self.delays: list[float] = []
        self.now = 0.0
        self.fail_next = False
        monkeypatch.setattr(resident_model, "time", SimpleNamespace(monotonic=lambda: self.now, time=time.time))
        monkeypatch.setattr(resident_model, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": self._sleep}))
        self.failures: list[NotReady] = []
        self.model = ResidentModel("some:1", self._spawn, self.failures.append)  # type: ignore[arg-type]

    async def _sleep(self, seconds: float) -> None:
        self.delays.append(seconds)

    async def _spawn(self) -> Worker:
        self.workers.append(Worker(fails=self.fail_next))
        return self.workers[-1]


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    return Fleet(monkeypatch)


def test_each_crash_in_a_row_delays_the_restart_more(fleet: Fleet) -> None:
    async def scenario() -> None:
        fleet.model.begin_load()
        for _ in range(6):
            await fleet.model.ready()
            fleet.workers[-1].die()
            assert fleet.model.state is ModelState.RESTARTING
        await fleet.model.ready()
        assert fleet.delays == [*RESTART_DELAYS_S, RESTART_DELAYS_S[-1], RESTART_DELAYS_S[-1]]
        assert fleet.model.num_restarts == 6
        assert fleet.model.state is ModelState.READY

    run(scenario)


def test_a_worker_that_lived_long_begins_a_new_row(fleet: Fleet) -> None:
    async def scenario() -> None:
        fleet.model.begin_load()
        for _ in range(3):
            await fleet.model.ready()
            fleet.workers[-1].die()
        await fleet.model.ready()
        fleet.now += STEADY_S + 1
        fleet.workers[-1].die()
        await fleet.model.ready()
        fleet.workers[-1].die()
        await fleet.model.ready()
        assert fleet.delays == [*RESTART_DELAYS_S[:3], 0.0, 0.0]

    run(scenario)


def test_while_it_restarts_nobody_gets_the_dead_worker(fleet: Fleet) -> None:
    async def scenario() -> None:
        fleet.model.begin_load()
        await fleet.model.ready()
        fleet.workers[0].die()
        with pytest.raises(EngineDead, match="being restarted"):
            fleet.model.worker()
        await fleet.model.ready()
        assert [fleet.model.worker()] == fleet.workers[1:]

    run(scenario)


def test_a_restart_that_cannot_load_is_told_to_who_waits(fleet: Fleet) -> None:
    async def scenario() -> None:
        fleet.model.begin_load()
        await fleet.model.ready()
        fleet.fail_next = True
        fleet.workers[0].die()
        with pytest.raises(NotReady, match="cannot load"):
            await fleet.model.ready()
        assert [str(failure) for failure in fleet.failures] == ["cannot load"]

    run(scenario)


def test_leases_tell_since_when_nobody_asks(fleet: Fleet) -> None:
    async def scenario() -> None:
        fleet.model.begin_load()
        await fleet.model.ready()
        assert fleet.model.idle_since is not None
        fleet.model.hold()
        fleet.model.hold()
        fleet.model.let_go()
        assert fleet.model.idle_since is None
        fleet.model.let_go()
        assert fleet.model.idle_since is not None

    run(scenario)


def test_an_unload_in_the_middle_of_a_restart_starts_nothing(fleet: Fleet) -> None:
    async def scenario() -> None:
        fleet.model.begin_load()
        await fleet.model.ready()
        fleet.workers[0].die()
        await fleet.model.unload(1.0, NotReady("leaving"))
        assert len(fleet.workers) == 1
        with pytest.raises(NotReady, match="being unloaded"):
            await fleet.model.ready()

    run(scenario)


def test_a_death_during_the_unload_is_not_restarted(fleet: Fleet) -> None:
    async def scenario() -> None:
        fleet.model.begin_load()
        await fleet.model.ready()
        leaving = asyncio.create_task(fleet.model.unload(60.0, NotReady("leaving")))
        await asyncio.wait([leaving], timeout=0)
        fleet.workers[0].die()
        await leaving
        assert fleet.workers[0].calls == ["drain"]
        assert fleet.model.num_restarts == 0

    run(scenario)


def test_what_is_not_done_in_time_is_ended_before_its_worker(fleet: Fleet) -> None:
    async def scenario() -> None:
        fleet.model.begin_load()
        await fleet.model.ready()
        await fleet.model.unload(0.0, NotReady("leaving"))
        assert fleet.workers[0].calls == ["drain", "fail_open", "kill"]

    run(scenario)
