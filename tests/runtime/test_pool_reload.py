"""Reloads: what is asked meanwhile is answered, by the old model or by the new one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runtime.pool import load_queue
from runtime.pool.capacity import Budget, PoolLimits
from runtime.pool.loaded_model import Left, LoadFailed, ModelState, PoolEvent, UnloadReason
from runtime.pool.model_pool import ModelPool
from runtime.protocol.errors import NotReady
from runtime.protocol.messages import EngineOptions
from tests.doubles.event_loops import run
from tests.doubles.pool_bench import (
    MIB,
    PATIENCE_S,
    departures_of,
    first_chunk,
    gone,
    new_pool,
    process_pool,
    spec_of,
    start_chat,
    text_of,
)

pytestmark = pytest.mark.api

TIGHT = PoolLimits(Budget(100 * MIB))
OLD, NEW = spec_of("some:1", EngineOptions(num_slots=4)), spec_of("some:1", EngineOptions(num_slots=8))
BROKEN = spec_of("some:1", engine="unheard-of")


def slots(pool: ModelPool) -> list[int]:
    return [model.info.num_slots if model.info else 0 for model in pool.loaded()]


@asynccontextmanager
async def clients(pool: ModelPool) -> AsyncIterator[list[str]]:
    """Sends requests without a pause; each must be answered."""
    answers: list[str] = []
    done = asyncio.Event()

    async def client() -> None:
        while not done.is_set():
            with await pool.acquire(pool.spec_of("some:1") or NEW, timeout_s=PATIENCE_S) as lease:
                answers.append(await text_of(start_chat(lease, "[[count: 9]][[delay: 0.002]]")))

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(client())
        yield answers
        done.set()
    assert set(answers) == {"1 2 3 4 5 6 7 8 9"}


@pytest.mark.parametrize("limits", [PoolLimits(), TIGHT], ids=["side by side", "one after the other"])
def test_no_request_fails_and_the_new_options_hold(limits: PoolLimits) -> None:
    async def scenario() -> None:
        async with process_pool(limits) as pool:
            left = departures_of(pool)
            old = await pool.acquire(OLD, timeout_s=PATIENCE_S)
            old.release()
            async with clients(pool) as answers:
                await pool.reload(NEW, timeout_s=PATIENCE_S, grace_s=PATIENCE_S)
                assert pool.spec_of("some:1") is NEW
                before = len(answers)
                while len(answers) < before + 8:
                    with await pool.acquire(NEW, timeout_s=PATIENCE_S) as lease:
                        await text_of(start_chat(lease, "and now?"))
            assert await left.get() == Left("some:1", UnloadReason.REPLACED)
            gone(old.info.pid)
            assert slots(pool) == [8]
            assert left.empty()

    run(scenario)


def test_an_idle_model_makes_room_for_both() -> None:
    """A long answer holds the old one, and would hold everybody up if the new one could not load beside it."""

    async def scenario() -> None:
        async with new_pool(PoolLimits(Budget(200 * MIB))) as pool:
            left = departures_of(pool)
            with await pool.acquire(OLD, timeout_s=PATIENCE_S) as lease:
                long = start_chat(lease, "[[endless]]")
                await first_chunk(long)
                (await pool.acquire(spec_of("idle:1"), timeout_s=PATIENCE_S)).release()
                (await pool.acquire(spec_of("idle:2"), timeout_s=PATIENCE_S)).release()
                await pool.reload(NEW, timeout_s=PATIENCE_S, grace_s=PATIENCE_S)
                assert await left.get() == Left("idle:1", UnloadReason.EVICTED)
                assert {model.spec.label for model in pool.loaded()} == {"some:1", "idle:2"}
                assert pool.spec_of("some:1") is NEW
                long.abort()

    run(scenario)


def test_a_long_answer_is_finished_by_the_old_while_the_new_serves() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            with await pool.acquire(OLD, timeout_s=PATIENCE_S) as lease:
                long = start_chat(lease, "[[endless]]")
                await first_chunk(long)
                await pool.reload(NEW, timeout_s=PATIENCE_S, grace_s=PATIENCE_S)
                assert slots(pool) == [8, 4]
                assert [model.state for model in pool.loaded()] == [ModelState.READY, ModelState.UNLOADING]
                await first_chunk(long)
                assert await text_of(start_chat(lease, "leased before")) == "You said: leased before"
                with await pool.acquire(NEW, timeout_s=PATIENCE_S) as fresh:
                    assert fresh.info.num_slots == 8
                left = departures_of(pool)
                long.abort()
            assert await left.get() == Left("some:1", UnloadReason.REPLACED)
            gone(lease.info.pid)

    run(scenario)


@pytest.mark.parametrize("keep_alive_s", [0.0, 600.0])
def test_the_new_one_keeps_its_own_keep_alive(keep_alive_s: float) -> None:
    """Also none: it may not expire before it has taken its place, nor stay for ever after."""

    async def scenario() -> None:
        async with new_pool() as pool:
            (await pool.acquire(OLD, timeout_s=PATIENCE_S)).release()
            left = departures_of(pool)
            new = spec_of("some:1", EngineOptions(num_slots=8), keep_alive_s=keep_alive_s)
            await pool.reload(new, timeout_s=PATIENCE_S, grace_s=PATIENCE_S)
            if keep_alive_s:
                assert pool.loaded()[0].expires_at is not None
                return
            departures = {(await left.get()).unload_reason for _ in range(2)}
            assert departures == {UnloadReason.EXPIRED, UnloadReason.REPLACED}
            assert pool.loaded() == ()

    run(scenario)


def test_when_the_new_one_cannot_load_the_old_goes_on() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            events: list[PoolEvent] = []
            pool.listeners.append(events.append)
            old = await pool.acquire(OLD, timeout_s=PATIENCE_S)
            old.release()
            for _ in range(6):  # as often as would open the breaker
                with pytest.raises(NotReady, match="there is no engine 'unheard-of'"):
                    await pool.reload(BROKEN, timeout_s=PATIENCE_S, grace_s=PATIENCE_S)
            with await pool.acquire(OLD, timeout_s=PATIENCE_S) as lease:
                assert lease.info.pid == old.info.pid
                assert await text_of(start_chat(lease, "still here")) == "You said: still here"
            assert slots(pool) == [4]
            assert pool.load_failure("some:1") is None
            assert sum(isinstance(event, LoadFailed) for event in events) == 6
            assert not any(isinstance(event, Left) for event in events)

    run(scenario)


def test_when_the_new_one_could_never_fit_the_old_goes_on() -> None:
    async def scenario() -> None:
        async with new_pool(TIGHT) as pool:
            (await pool.acquire(OLD, timeout_s=PATIENCE_S)).release()
            larger = spec_of("some:1", folder=Path("another"), mib=200)  # of which nothing has been measured
            with pytest.raises(NotReady, match="needs 200 MiB") as caught:
                await pool.reload(larger, timeout_s=PATIENCE_S, grace_s=PATIENCE_S)
            assert caught.value.code == "insufficient_memory"
            assert slots(pool) == [4]

    run(scenario)


def test_who_gives_up_a_reload_keeps_the_old() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            (await pool.acquire(OLD, timeout_s=PATIENCE_S)).release()
            with pytest.raises(NotReady, match="still loading after 0 s"):
                await pool.reload(NEW, timeout_s=0.0, grace_s=PATIENCE_S)
            requested = asyncio.create_task(pool.reload(NEW, timeout_s=PATIENCE_S, grace_s=PATIENCE_S))
            await asyncio.sleep(0)
            with pytest.raises(NotReady, match="being reloaded already"):
                await pool.reload(NEW, timeout_s=PATIENCE_S, grace_s=PATIENCE_S)
            requested.cancel()
            with pytest.raises(asyncio.CancelledError):
                await requested
            assert pool.spec_of("some:1") is OLD
            await pool.reload(NEW, timeout_s=PATIENCE_S, grace_s=PATIENCE_S)
            assert slots(pool)[0] == 8

    run(scenario)


@pytest.mark.parametrize("case", ["it expires", "it is evicted"])
def test_when_the_old_leaves_meanwhile_the_new_takes_its_place(case: str) -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            (await pool.acquire(OLD, timeout_s=PATIENCE_S)).release()
            reload = asyncio.create_task(pool.reload(NEW, timeout_s=PATIENCE_S, grace_s=PATIENCE_S))
            await asyncio.sleep(0)
            if case == "it expires":
                keep = asyncio.create_task(pool.acquire(OLD, timeout_s=PATIENCE_S, keep_alive_s=0.0))
                (await keep).release()
            else:
                pool.evict("some:1")
            with await pool.acquire(OLD, timeout_s=PATIENCE_S) as lease:
                await reload
                assert pool.spec_of("some:1") is NEW
                assert lease.info.num_slots in (4, 8)
            assert slots(pool)[0] == 8

    run(scenario)


def test_an_unload_during_a_reload_unloads_both() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            (await pool.acquire(OLD, timeout_s=PATIENCE_S)).release()
            reload = asyncio.create_task(pool.reload(NEW, timeout_s=PATIENCE_S, grace_s=PATIENCE_S))
            await asyncio.sleep(0)
            assert len(pool.loaded()) == 2
            assert await pool.unload("some:1")
            with pytest.raises(NotReady, match="being unloaded"):
                await reload
            assert pool.loaded() == ()

    run(scenario)


def test_a_reload_of_what_is_not_loaded_loads_it() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            await pool.reload(NEW, timeout_s=PATIENCE_S, grace_s=PATIENCE_S)
            assert slots(pool) == [8]

    run(scenario)


@pytest.mark.parametrize("loaded", [True, False], ids=["while it makes way", "while it waits for room"])
def test_those_who_wait_for_their_turn_get_the_reloaded_model(loaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They requested it with its former spec, before the reload."""

    async def scenario() -> None:
        async with new_pool(TIGHT) as pool:
            first, then = (OLD, spec_of("other:1")) if loaded else (spec_of("other:1"), OLD)
            busy = await pool.acquire(first, timeout_s=PATIENCE_S)
            waiting = [asyncio.create_task(pool.acquire(spec, timeout_s=PATIENCE_S)) for spec in (then, OLD)]
            await asyncio.sleep(0)
            assert pool.waiting()[-1] == "some:1"
            reload = asyncio.create_task(pool.reload(NEW, timeout_s=PATIENCE_S, grace_s=PATIENCE_S))
            await asyncio.sleep(0)
            busy.release()
            for each in waiting:
                (await each).release()
            await reload
            assert slots(pool) == [8]

    monkeypatch.setattr(load_queue, "TURN_S", 0.0)
    run(scenario)


def test_those_who_wait_for_the_first_load_get_the_reloaded_model() -> None:
    async def scenario() -> None:
        async with new_pool(TIGHT) as pool:
            waiting = [asyncio.create_task(pool.acquire(OLD, timeout_s=PATIENCE_S)) for _ in range(3)]
            await asyncio.sleep(0)
            await pool.reload(NEW, timeout_s=PATIENCE_S, grace_s=PATIENCE_S)
            for lease in await asyncio.gather(*waiting):
                assert lease.info.num_slots == 8
                lease.release()

    run(scenario)


def test_the_end_of_the_pool_ends_a_reload() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            (await pool.acquire(OLD, timeout_s=PATIENCE_S)).release()
            reload = asyncio.create_task(pool.reload(NEW, timeout_s=PATIENCE_S, grace_s=PATIENCE_S))
            await asyncio.sleep(0)
            await pool.close(grace_s=0.0)
            with pytest.raises(NotReady):
                await reload
            assert pool.loaded() == ()

    run(scenario)


def test_the_end_of_the_pool_does_not_wait_for_a_grace_that_was_given_before() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            lease = await pool.acquire(OLD, timeout_s=PATIENCE_S)
            long = start_chat(lease, "[[endless]]")
            await pool.reload(NEW, timeout_s=PATIENCE_S, grace_s=3600.0)
            await pool.close(grace_s=0.0)
            with pytest.raises(NotReady, match="shutting down"):
                await text_of(long)
            gone(lease.info.pid)
            lease.release()

    run(scenario)
