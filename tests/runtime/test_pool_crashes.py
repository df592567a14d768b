"""Workers that die cost their own requests, at once and with a clear error; the next request works."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from runtime.pool import breaker
from runtime.pool.lease import Lease
from runtime.pool.loaded_model import ModelState
from runtime.protocol.errors import EngineDead, NotReady
from tests.doubles.engine_bench import Clock
from tests.doubles.event_loops import LOOPS, run
from tests.doubles.pool_bench import PATIENCE_S, ROOT, SPEC, first_chunk, gone, new_pool, process_pool, spec_of, start_chat, text_of

pytestmark = pytest.mark.api


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a signal")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_killed_worker_ends_every_request_at_once_and_the_next_works(loop: str) -> None:
    async def scenario() -> None:
        async with process_pool() as pool:
            lease = await pool.acquire(SPEC, timeout_s=PATIENCE_S)
            generations = [start_chat(lease, "[[endless]]") for _ in range(16)]
            await asyncio.gather(*map(first_chunk, generations))
            killed_at = time.monotonic()
            os.kill(lease.info.pid, signal.SIGKILL)
            ends = await asyncio.gather(*map(text_of, generations), return_exceptions=True)
            assert time.monotonic() - killed_at < 1.0
            assert [type(end) for end in ends] == [EngineDead] * 16
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as fresh:
                assert fresh.info.pid != lease.info.pid
                assert await text_of(start_chat(fresh, "again")) == "You said: again"
                assert await text_of(start_chat(lease, "held")) == "You said: held"  # a lease outlives the worker
            (model,) = pool.loaded()
            assert (model.state, model.num_restarts, model.num_leases) == (ModelState.READY, 1, 1)
            lease.release()

    run(scenario, loop)


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a signal")
@pytest.mark.parametrize("loop", LOOPS)
def test_whatever_is_sent_to_a_worker_just_killed_ends_in_a_clear_error(loop: str) -> None:
    """Submits and aborts, while its pipes are breaking one after the other."""

    async def scenario() -> None:
        async with process_pool() as pool:
            lease = await pool.acquire(SPEC, timeout_s=PATIENCE_S)
            endless = [start_chat(lease, "[[endless]]") for _ in range(4)]
            os.kill(lease.info.pid, signal.SIGKILL)
            with pytest.raises(EngineDead):
                await request_until_noticed(lease)
            ends = await asyncio.gather(*map(text_of, endless), return_exceptions=True)
            assert {type(end) for end in ends} == {EngineDead}
            lease.release()

    run(scenario, loop)


def test_a_request_that_crashes_the_worker_does_not_stop_the_model() -> None:
    async def scenario() -> None:
        async with process_pool() as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                with pytest.raises(EngineDead, match="being restarted") as caught:
                    await text_of(start_chat(lease, "[[crash]]"))
                assert caught.value.retry_after_s
                with pytest.raises(EngineDead, match="being restarted"):
                    start_chat(lease, "too early")
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                assert await text_of(start_chat(lease, "later")) == "You said: later"

    run(scenario)


def test_a_model_that_crashes_again_and_again_is_left_alone_until_it_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who wait for its worker when it is given up get the reason, too."""

    async def scenario() -> None:
        async with new_pool() as pool:
            for _ in range(breaker.MOST_IN_ROW):
                with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                    crash = start_chat(lease, "[[crash]]")
                    with pytest.raises(EngineDead):
                        await text_of(crash)
            assert pool.loaded()[0].state is ModelState.RESTARTING
            for _ in range(2):  # who waits for the restart, then who comes later
                with pytest.raises(NotReady, match=r"failed 5 times in a row.*exit code 139.*/reset") as caught:
                    await pool.acquire(SPEC, timeout_s=PATIENCE_S)
                assert caught.value.code == "model_broken"
                assert caught.value.retry_after_s
            assert pool.loaded() == ()
            assert pool.load_failure(SPEC.label) is not None
            pool.reset(SPEC.label)
            assert pool.load_failure(SPEC.label) is None
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                assert await text_of(start_chat(lease, "mended")) == "You said: mended"

    monkeypatch.setattr(breaker, "RETRY_DELAYS_S", (0.0,))
    run(scenario)


def test_requests_do_not_try_a_load_that_fails_faster_than_the_pauses_allow() -> None:
    """Five requests in a row used to be five attempts within a second."""

    async def scenario() -> None:
        clock = Clock()
        async with new_pool(clock=clock) as pool:
            broken, attempts = spec_of("bad:1", engine="unheard-of"), []
            pool.listeners.append(lambda event: attempts.append(clock.now - 1000))
            while len(attempts) < breaker.MOST_IN_ROW:
                with pytest.raises(NotReady, match="there is no engine") as caught:
                    await pool.acquire(broken, timeout_s=PATIENCE_S)
                assert caught.value.code == "load_failed"
                clock.now += 0.25
            assert attempts == [0.0, 0.25, 0.75, 2.75, 7.75]
            with pytest.raises(NotReady) as caught:
                await pool.acquire(broken, timeout_s=PATIENCE_S)
            assert (caught.value.code, caught.value.retry_after_s) == ("model_broken", breaker.COOLDOWN_S - 0.25)

    run(scenario)


def test_a_load_that_fails_again_and_again_is_not_tried_until_it_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "RETRY_DELAYS_S", (0.0,))

    async def scenario() -> None:
        async with new_pool() as pool:
            broken = spec_of("bad:1", engine="unheard-of")
            for _ in range(breaker.MOST_IN_ROW):
                with pytest.raises(NotReady, match="there is no engine") as caught:
                    await pool.acquire(broken, timeout_s=PATIENCE_S)
                assert caught.value.code == "load_failed"
            with pytest.raises(NotReady, match="there is no engine 'unheard-of'") as caught:
                await pool.acquire(broken, timeout_s=PATIENCE_S)
            assert caught.value.code == "model_broken"
            pool.reset("bad:1")
            with pytest.raises(NotReady) as caught:
                await pool.acquire(broken, timeout_s=PATIENCE_S)
            assert caught.value.code == "load_failed"

    run(scenario)


def test_a_reset_of_a_model_that_serves_changes_nothing() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            lease = await pool.acquire(SPEC, timeout_s=PATIENCE_S)
            pool.reset(SPEC.label)
            with pytest.raises(EngineDead):
                await text_of(start_chat(lease, "[[crash]]"))
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as fresh:
                assert await text_of(start_chat(fresh, "again")) == "You said: again"
            lease.release()

    run(scenario)


async def request_until_noticed(lease: Lease) -> None:
    while True:
        start_chat(lease, "hello").abort()
        await asyncio.sleep(0)


PARENT = """
import asyncio, sys
from pathlib import Path
from runtime.pool.loaded_model import Candidate, LoadSpec
from runtime.pool.memory import MemoryEstimate
from runtime.protocol.request import ChatPrompt, SamplingParams
from runtime.pool.capacity import PoolLimits
from runtime.pool.local import LocalWorkers
from runtime.pool.model_pool import ModelPool

async def main():
    pool = ModelPool(PoolLimits(), LocalWorkers())
    lease = await pool.acquire(LoadSpec("fake:1", (Candidate(Path(), "fake", MemoryEstimate(1, 1, 1)),)), timeout_s=30)
    prompt = ChatPrompt(messages=[{"role": "user", "content": sys.argv[1]}])
    lease.submit(prompt, SamplingParams())
    print(lease.info.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("busy_with", ["[[endless]]", "[[hang]]"])
def test_no_worker_outlives_its_gateway(busy_with: str) -> None:
    """Whatever the worker is doing, also when a step never returns."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, busy_with], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert parent.stdout is not None
    try:
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    gone(pid)
