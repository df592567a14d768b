"""One worker of a model through loads, crashes and the end, with workers without processes and delays that nobody waits for."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace

import pytest

from runtime.pool import replica as replica_module
from runtime.pool.breaker import MOST_IN_ROW, RETRY_DELAYS_S, Breaker
from runtime.pool.handle import WorkerHandle
from runtime.pool.loaded_model import ModelState
from runtime.pool.replica import Replica
from runtime.protocol.errors import EngineDead, NotReady
from runtime.protocol.messages import EngineOptions, Load, ModelInfo, Submit
from runtime.protocol.request import ChatPrompt
from tests.doubles.engine_bench import Clock
from tests.doubles.event_loops import run
from tests.doubles.fake_worker import FakeWorker, FakeWorkers, Start
from tests.doubles.pool_bench import text_of
from tests.doubles.scripted_workers import settle

LOAD = Load(engine="fake", folder="", options=EngineOptions())


class Bench:
    """A replica that records its callbacks."""

    def __init__(self, *script: Start, clock: Clock | None = None) -> None:
        self.started = FakeWorkers(script)
        self.breaker = Breaker("some:1", clock or Clock())
        self.num_ready = 0
        self.deaths: list[str] = []
        self.lost: list[str] = []
        self.replica = Replica(
            "some:1",
            partial(self.started, "some:1", LOAD),
            self.breaker,
            on_ready=self._ready,
            on_died=self.deaths.append,
            on_lost=lambda _, why: self.lost.append(str(why)),
        )

    def _ready(self) -> None:
        self.num_ready += 1

    async def load(self) -> ModelInfo:
        self.replica.begin_load()
        return await self.loaded()

    async def crash(self) -> None:
        """Its newest worker ends; returns once that has been noticed."""
        self.workers[-1].die()
        await self.workers[-1].wait_exit()

    async def loaded(self) -> ModelInfo:
        await asyncio.wait([self.replica.loading])
        return self.replica.loading.result()

    @property
    def worker(self) -> object:
        return self.replica.worker()

    @property
    def workers(self) -> list[FakeWorker]:
        return self.started.workers


def chat_request(text: str) -> Submit:
    return Submit(request=1, prompt=ChatPrompt(messages=[{"role": "user", "content": text}]))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[float]:
    """Before restarts; nobody waits, but the clock moves on."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds

    monkeypatch.setattr(replica_module, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": sleep}))
    return slept


def test_a_load_makes_it_ready() -> None:
    async def scenario() -> None:
        bench = Bench()
        info = await bench.load()
        assert (bench.replica.state, bench.replica.info) == (ModelState.READY, info)
        assert bench.worker is bench.workers[0]
        await settle()
        assert bench.num_ready == 1

    run(scenario)


def test_each_crash_in_a_row_delays_the_restart_more_until_it_is_given_up(delays: list[float], clock: Clock) -> None:
    async def scenario() -> None:
        bench = Bench(clock=clock)
        await bench.load()
        for _ in range(MOST_IN_ROW):
            await bench.crash()
            assert bench.replica.state is ModelState.RESTARTING
            await asyncio.wait([bench.replica.loading])
        with pytest.raises(NotReady, match=r"5 times in a row.*the last error: The worker died: it ended with exit code 139"):
            await bench.loaded()
        await settle()
        assert delays == [*RETRY_DELAYS_S]
        assert len(bench.workers) == MOST_IN_ROW
        assert len(bench.deaths) == MOST_IN_ROW
        assert len(bench.lost) == 1

    run(scenario)


def test_an_answer_begins_a_new_row(delays: list[float], clock: Clock) -> None:
    async def scenario() -> None:
        bench = Bench(clock=clock)
        await bench.load()
        for _ in range(3):
            await bench.crash()
            await bench.loaded()
        assert await text_of(bench.replica.worker().submit(chat_request("Hello"))) == "You said: Hello"
        await bench.crash()
        await bench.loaded()
        assert delays == [*RETRY_DELAYS_S[:3], 0.0]
        assert bench.replica.num_restarts == 4

    run(scenario)


def test_while_it_restarts_nobody_gets_the_dead_worker() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.load()
        bench.replica.seen.remember((1, 2))
        await bench.crash()
        with pytest.raises(EngineDead, match="being restarted"):
            bench.replica.worker()
        assert bench.replica.info is None
        await bench.loaded()
        assert bench.worker is bench.workers[1]
        assert bench.replica.seen.num_matched((1, 2)) == 0, "the new worker has computed nothing yet"

    run(scenario)


def test_a_restart_that_cannot_load_loses_it() -> None:
    async def scenario() -> None:
        bench = Bench(Start(), Start(fails="cannot load"))
        await bench.load()
        await bench.crash()
        with pytest.raises(NotReady, match="cannot load"):
            await bench.loaded()
        await settle()
        assert bench.lost == ["cannot load"]

    run(scenario)


@pytest.mark.parametrize(
    "error", [NotReady("no processes left", code="load_failed"), ValueError("unheard of")], ids=["its reason", "a mistake"]
)
def test_a_worker_that_cannot_be_started_is_lost_with_its_reason(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def start() -> WorkerHandle:
        raise error

    async def scenario() -> None:
        lost: list[NotReady] = []
        replica = Replica(
            "some:1",
            start,
            Breaker("some:1"),
            on_ready=lambda: None,
            on_died=lambda _: None,
            on_lost=lambda _, why: lost.append(why),
        )
        replica.begin_load()
        await asyncio.wait([replica.loading])
        await settle()
        (why,) = lost
        assert why.code == "load_failed"
        assert str(error) in str(why)

    run(scenario)


def test_a_load_that_takes_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        bench = Bench(Start(may_load=asyncio.Event()))
        with pytest.raises(NotReady, match=r"was not loaded within 0\.01 s"):
            await bench.load()

    monkeypatch.setattr(replica_module, "LOAD_LIMIT_S", 0.01)
    run(scenario)


def test_threads_are_sent_only_when_they_change() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.replica.set_threads(3)  # nobody is there yet
        await bench.load()
        for num_threads in (1, 2, 2, 1):
            bench.replica.set_threads(num_threads)
        assert bench.workers[0].calls == ["set_threads 2", "set_threads 1"]

    run(scenario)


def test_an_unload_in_the_middle_of_a_restart_starts_nothing() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.load()
        await bench.crash()
        await bench.replica.unload(1.0, NotReady("leaving"))
        assert len(bench.workers) == 1
        assert bench.lost == []

    run(scenario)


def test_a_death_during_the_unload_is_not_restarted() -> None:
    async def scenario() -> None:
        bench = Bench(Start(lingers=True))
        await bench.load()
        (leaving,) = await settle(bench.replica.unload(60.0, NotReady("leaving")))
        bench.workers[0].die()
        await leaving
        assert bench.workers[0].calls == ["drain"]
        assert bench.replica.num_restarts == 0

    run(scenario)


def test_what_is_not_done_in_time_is_ended_before_its_worker() -> None:
    async def scenario() -> None:
        bench = Bench(Start(lingers=True))
        await bench.load()
        await bench.replica.unload(0.0, NotReady("leaving"))
        assert bench.workers[0].calls == ["drain", "fail_open leaving", "kill"]

    run(scenario)


def test_a_second_unload_may_be_shorter() -> None:
    async def scenario() -> None:
        bench = Bench(Start(lingers=True))
        await bench.load()
        (first,) = await settle(bench.replica.unload(60.0, NotReady("leaving")))
        await bench.replica.unload(0.0, NotReady("closing"))
        await first
        assert bench.workers[0].calls == ["drain", "drain", "fail_open closing", "kill"]

    run(scenario)


def test_two_unloads_while_it_loads_cancel_the_start_once() -> None:
    """The second must not interrupt the first, which waits for what the start holds to be released."""

    async def scenario() -> None:
        num_cancelled, released, may_release = 0, False, asyncio.Event()

        async def start() -> WorkerHandle:
            nonlocal num_cancelled, released
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                num_cancelled += 1
                await may_release.wait()
                released = True
                raise
            raise AssertionError("it never loads")

        replica = Replica(
            "some:1", start, Breaker("some:1"), on_ready=lambda: None, on_died=lambda _: None, on_lost=lambda *_: None
        )
        replica.begin_load()
        await settle()
        unloads = await settle(replica.unload(0.0, NotReady("leaving")))
        unloads += await settle(replica.unload(0.0, NotReady("closing")))
        may_release.set()
        await asyncio.gather(*unloads)
        assert (num_cancelled, released) == (1, True)

    run(scenario)
