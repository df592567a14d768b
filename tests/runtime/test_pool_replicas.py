"""A model on two real workers: one may die, and the cores are shared out among whoever is there."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from runtime.pool import core_sharing
from runtime.pool import model_pool as pool_module
from runtime.pool.capacity import Budget, PoolLimits
from runtime.pool.lease import Lease
from runtime.pool.loaded_model import Loaded, ModelState, PoolEvent
from runtime.pool.model_pool import ModelPool
from runtime.protocol.errors import EngineDead, NotReady
from runtime.protocol.messages import EngineOptions
from tests.doubles.event_loops import run
from tests.doubles.pool_bench import MIB, PATIENCE_S, first_chunk, gone, process_pool, spec_of, start_chat, text_of

pytestmark = pytest.mark.api

EIGHT_CORES = PoolLimits(Budget(1 << 40), num_cores=8)


async def until_all_serve(pool: ModelPool, num_replicas: int) -> None:
    """Polls until the replicas that load in the background are there, too."""
    while [each.state for each in pool.loaded()[0].replicas] != [ModelState.READY] * num_replicas:
        with await pool.acquire(spec_of("some:1"), timeout_s=PATIENCE_S) as lease:
            await text_of(start_chat(lease, "are you there?"))


def pids(pool: ModelPool) -> list[int]:
    return [replica.info.pid for replica in pool.loaded()[0].replicas if replica.info is not None]


async def threads(pool: ModelPool, expected: dict[str, list[int]]) -> None:
    """Waits until the workers themselves report that they compute with so many threads."""
    reported: dict[str, list[int]] = {}
    while reported != expected:
        reported = {model.spec.label: [r.stats.threads if r.stats else 0 for r in model.replicas] for model in pool.loaded()}
        for model in pool.loaded():
            with await pool.acquire(model.spec, timeout_s=PATIENCE_S) as lease:
                await text_of(start_chat(lease, "[[count: 2]]"))


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a signal")
def test_one_dies_and_the_other_serves_until_it_is_back() -> None:
    async def scenario() -> None:
        async with process_pool(EIGHT_CORES) as pool:
            events: list[PoolEvent] = []
            pool.listeners.append(events.append)
            lease = await pool.acquire(spec_of("some:1", replicas=2), timeout_s=PATIENCE_S)
            await until_all_serve(pool, 2)
            on_first, on_second = start_chat(lease, "[[endless]]"), start_chat(lease, "[[endless]]")
            await asyncio.gather(first_chunk(on_first), first_chunk(on_second))
            first, second = pids(pool)
            os.kill(first, signal.SIGKILL)
            with pytest.raises(EngineDead):
                await text_of(on_first)
            assert pool.loaded()[0].state is ModelState.READY
            assert await text_of(start_chat(lease, "with the same lease")) == "You said: with the same lease"
            assert pids(pool) == [second]
            await first_chunk(on_second)
            on_second.abort()
            await until_all_serve(pool, 2)
            assert second in pids(pool)
            assert pool.loaded()[0].num_restarts == 1
            assert sum(isinstance(event, Loaded) for event in events) == 1
            lease.release()

    run(scenario)


def test_both_are_charged_and_both_leave() -> None:
    async def scenario() -> None:
        async with process_pool(PoolLimits(Budget(200 * MIB), num_cores=2)) as pool:
            lease = await pool.acquire(spec_of("some:1", replicas=2, mib=90), timeout_s=PATIENCE_S)
            with pytest.raises(NotReady, match=r"beside some:1 1\d\d MiB \(busy\)"):
                await pool.acquire(spec_of("other:1", mib=90), timeout_s=0.0)
            lease.release()
            await until_all_serve(pool, 2)
            workers = pids(pool)
            await pool.unload("some:1")
            for pid in workers:
                gone(pid)

    run(scenario)


def test_cores_are_shared_out_and_given_back() -> None:
    async def scenario() -> None:
        async with process_pool(EIGHT_CORES) as pool:
            alone = await pool.acquire(spec_of("some:1"), timeout_s=PATIENCE_S)
            assert alone.info.threads == 8
            with await pool.acquire(spec_of("other:1", replicas=2), timeout_s=PATIENCE_S) as joined:
                assert joined.info.threads == 2
                await threads(pool, {"some:1": [3], "other:1": [3, 2]})
            await pool.unload("other:1")
            await threads(pool, {"some:1": [8]})
            alone.release()

    run(scenario)


def test_an_idle_model_gives_its_cores_away_without_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with process_pool(EIGHT_CORES) as pool:
            busy = await pool.acquire(spec_of("busy:1"), timeout_s=PATIENCE_S)
            with await pool.acquire(spec_of("idle:1"), timeout_s=PATIENCE_S):
                await until_it_computes_with(4, pool, busy)
            await until_it_computes_with(8, pool, busy)
            busy.release()

    async def until_it_computes_with(num_threads: int, pool: ModelPool, lease: Lease) -> None:
        """Submits on a lease that stays open, so that the pool is not notified."""
        while (stats := pool.loaded()[0].stats) is None or stats.threads != num_threads:
            await text_of(start_chat(lease, "[[count: 2]]"))

    for module in (core_sharing, pool_module):
        monkeypatch.setattr(module, "SETTLE_S", 0.1)
    run(scenario)


def test_a_worker_with_a_fixed_number_of_threads_keeps_them() -> None:
    async def scenario() -> None:
        async with process_pool(EIGHT_CORES) as pool:
            with await pool.acquire(spec_of("told:1", EngineOptions(threads=5)), timeout_s=PATIENCE_S) as reported:
                with await pool.acquire(spec_of("other:1"), timeout_s=PATIENCE_S):
                    await threads(pool, {"told:1": [5], "other:1": [4]})
                assert reported.info.threads == 5

    run(scenario)
