"""Unloads and the end of the pool: in time what can be, with a clear error what cannot."""

from __future__ import annotations

import asyncio

import pytest

from runtime.pool.loaded_model import ModelState
from runtime.protocol.errors import NotReady
from tests.doubles.event_loops import LOOPS, run
from tests.doubles.pool_bench import PATIENCE_S, SPEC, first_chunk, gone, new_pool, process_pool, start_chat, text_of

pytestmark = pytest.mark.api


def test_an_unload_lets_requests_finish() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                answer = start_chat(lease, "[[count: 50]][[delay: 0.002]]")
                await first_chunk(answer)
                assert await pool.unload(SPEC.label, grace_s=PATIENCE_S)
                assert (await text_of(answer)).endswith(" 50")
            gone(lease.info.pid)
            assert pool.loaded() == ()
            assert not await pool.unload(SPEC.label)

    run(scenario)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_unload_ends_what_is_not_done_in_time(loop: str) -> None:
    async def scenario() -> None:
        async with process_pool() as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                endless = start_chat(lease, "[[endless]]")
                await first_chunk(endless)
                await pool.unload(SPEC.label, grace_s=0.05)
                with pytest.raises(NotReady, match="was unloaded while the request ran"):
                    await text_of(endless)
            gone(lease.info.pid)
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                assert await text_of(start_chat(lease, "back")) == "You said: back"

    run(scenario, loop)


def test_a_model_on_its_way_out_finishes_while_another_worker_takes_what_is_new() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as old:
                endless = start_chat(old, "[[endless]]")
                await first_chunk(endless)
                leaving = asyncio.create_task(pool.unload(SPEC.label, grace_s=PATIENCE_S))
                await asyncio.sleep(0)
                with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as new:
                    assert await text_of(start_chat(new, "new")) == "You said: new"
                    assert new.info.pid != old.info.pid
                assert [model.state for model in pool.loaded()] == [ModelState.READY, ModelState.UNLOADING]
                await first_chunk(endless)
                endless.abort()
                assert await leaving
            assert [model.state for model in pool.loaded()] == [ModelState.READY]

    run(scenario)


def test_an_unload_during_the_load_fails_those_who_wait() -> None:
    async def scenario() -> None:
        async with process_pool() as pool:
            waiting = asyncio.create_task(pool.acquire(SPEC, timeout_s=PATIENCE_S))
            await asyncio.sleep(0)
            assert pool.loaded()
            await pool.unload(SPEC.label)
            with pytest.raises(NotReady, match="unloaded"):
                await waiting
            assert pool.loaded() == ()

    run(scenario)


def test_a_caller_that_leaves_does_not_stop_the_load() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            impatient = asyncio.create_task(pool.acquire(SPEC, timeout_s=PATIENCE_S))
            patient = asyncio.create_task(pool.acquire(SPEC, timeout_s=PATIENCE_S))
            await asyncio.sleep(0)
            assert pool.loaded()
            impatient.cancel()
            with pytest.raises(asyncio.CancelledError):
                await impatient
            (await patient).release()

    run(scenario)


def test_a_closed_pool_takes_nothing_and_leaves_nothing() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            lease = await pool.acquire(SPEC, timeout_s=PATIENCE_S)
            endless = start_chat(lease, "[[endless]]")
            await first_chunk(endless)
            await pool.close(grace_s=0.05)
            with pytest.raises(NotReady, match="shutting down") as caught:
                await text_of(endless)
            assert caught.value.code == "draining"
            with pytest.raises(NotReady, match="shutting down"):
                await pool.acquire(SPEC, timeout_s=PATIENCE_S)
            gone(lease.info.pid)

    run(scenario)
