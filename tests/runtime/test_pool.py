"""The pool with real workers and the fake model: loads, streams, aborts, crashes, restarts, unloads."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from event_loops import LOOPS, run

from runtime.errors import EngineDead, InvalidRequest, NotReady, OverCapacity, StepFailed
from runtime.generation import Generation
from runtime.messages import ChatPrompt, Chunk, EngineOptions, Finished, FinishReason, SamplingParams, Started
from runtime.pool import Lease, LoadSpec, ModelPool, ModelState

ROOT = Path(__file__).parents[2]
SPEC = LoadSpec("fake:1", Path(), "fake", EngineOptions(num_slots=16))
PATIENCE_S = 30.0


def ask(lease: Lease, said: str, **params: Any) -> Generation:
    return lease.submit(ChatPrompt(messages=[{"role": "user", "content": said}]), SamplingParams(**params))


async def text_of(generation: Generation) -> str:
    pieces = []
    async for event in generation:
        if isinstance(event, Chunk | Finished):
            pieces.append(event.text)
    return "".join(pieces)


async def first_chunk(generation: Generation) -> Chunk:
    async for event in generation:
        if isinstance(event, Chunk):
            return event
    raise AssertionError("it ended before it said anything")


@asynccontextmanager
async def new_pool() -> AsyncIterator[ModelPool]:
    pool = ModelPool()
    try:
        yield pool
    finally:
        await pool.close(grace_s=0.0)


def gone(pid: int) -> None:
    """Waits until the process has ended; psutil.TimeoutExpired if it does not."""
    try:
        psutil.Process(pid).wait(timeout=10)
    except psutil.NoSuchProcess:
        return


@pytest.mark.parametrize("loop", LOOPS)
def test_a_request_streams_and_ends(loop: str) -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                assert lease.info.pid != os.getpid()
                events = [event async for event in ask(lease, "Hello €")]
            assert isinstance(events[0], Started)
            assert isinstance(events[-1], Finished)
            assert "".join(e.text for e in events if isinstance(e, Chunk)) == "You said: Hello €"
            assert events[-1].reason is FinishReason.STOP

    run(scenario, loop)


def test_a_refused_request_is_only_its_own_failure() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                running = ask(lease, "[[count: 300]]")
                with pytest.raises(InvalidRequest, match="maximum context length is 8192"):
                    await text_of(ask(lease, "x" * 9000))
                assert (await text_of(running)).endswith(" 300")

    run(scenario)


def test_an_abort_frees_the_row() -> None:
    """With one slot, the next request is answered only if the endless one has left."""

    async def scenario() -> None:
        async with new_pool() as pool:
            spec = LoadSpec("one:1", Path(), "fake", EngineOptions(num_slots=1, context_length=1 << 22))
            with await pool.acquire(spec, timeout_s=PATIENCE_S) as lease:
                endless = ask(lease, "[[endless]]")
                await first_chunk(endless)
                endless.abort()
                assert await text_of(ask(lease, "next")) == "You said: next"

    run(scenario)


def test_a_full_queue_sheds() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            options = EngineOptions(num_slots=1, max_waiting=1, context_length=1 << 22)
            with await pool.acquire(LoadSpec("one:1", Path(), "fake", options), timeout_s=PATIENCE_S) as lease:
                running, waiting, shed = (ask(lease, "[[endless]]") for _ in range(3))
                with pytest.raises(OverCapacity, match="queue is full"):
                    await text_of(shed)
                waiting.abort()
                running.abort()

    run(scenario)


def test_a_step_that_fails_costs_its_requests_and_not_the_worker(capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                with pytest.raises(StepFailed, match="may be retried"):
                    await text_of(ask(lease, "[[fail]]"))
                assert await text_of(ask(lease, "again")) == "You said: again"
                assert pool.loaded()[0].num_restarts == 0

    run(scenario)
    printed = capfd.readouterr().err
    assert "RuntimeError in the worker" in printed
    assert "[[fail]]" not in printed


# ---- crashes ----


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a signal")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_killed_worker_ends_every_request_at_once_and_the_next_works(loop: str) -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            lease = await pool.acquire(SPEC, timeout_s=PATIENCE_S)
            generations = [ask(lease, "[[endless]]") for _ in range(16)]
            await asyncio.gather(*map(first_chunk, generations))
            killed_at = time.monotonic()
            os.kill(lease.info.pid, signal.SIGKILL)
            ends = await asyncio.gather(*map(text_of, generations), return_exceptions=True)
            assert time.monotonic() - killed_at < 1.0
            assert [type(end) for end in ends] == [EngineDead] * 16
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as fresh:
                assert fresh.info.pid != lease.info.pid
                assert await text_of(ask(fresh, "again")) == "You said: again"
                assert await text_of(ask(lease, "held")) == "You said: held"  # a lease outlives the worker
            (model,) = pool.loaded()
            assert (model.state, model.num_restarts, model.num_leases) == (ModelState.READY, 1, 1)
            lease.release()

    run(scenario, loop)


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a signal")
@pytest.mark.parametrize("loop", LOOPS)
def test_whatever_is_asked_of_a_worker_just_killed_ends_in_a_clear_error(loop: str) -> None:
    """Submits and aborts, while its pipes are breaking one after the other."""

    async def scenario() -> None:
        async with new_pool() as pool:
            lease = await pool.acquire(SPEC, timeout_s=PATIENCE_S)
            endless = [ask(lease, "[[endless]]") for _ in range(4)]
            os.kill(lease.info.pid, signal.SIGKILL)
            with pytest.raises(EngineDead):
                while True:
                    ask(lease, "hello").abort()
                    await asyncio.sleep(0)
            ends = await asyncio.gather(*map(text_of, endless), return_exceptions=True)
            assert {type(end) for end in ends} == {EngineDead}
            lease.release()

    run(scenario, loop)


def test_a_request_that_crashes_the_worker_does_not_stop_the_model() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                with pytest.raises(EngineDead, match="being restarted") as caught:
                    await text_of(ask(lease, "[[crash]]"))
                assert caught.value.retry_after_s
                with pytest.raises(EngineDead, match="being restarted"):
                    ask(lease, "too early")
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                assert await text_of(ask(lease, "later")) == "You said: later"

    run(scenario)


PARENT = """
import asyncio, sys
from pathlib import Path
from runtime.messages import ChatPrompt, EngineOptions, SamplingParams
from runtime.pool import LoadSpec, ModelPool

async def main():
    pool = ModelPool()
    lease = await pool.acquire(LoadSpec("fake:1", Path(), "fake", EngineOptions()), timeout_s=30)
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


# ---- loads ----


def test_all_who_ask_at_once_share_one_process() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            leases = await asyncio.gather(*(pool.acquire(SPEC, timeout_s=PATIENCE_S) for _ in range(5)))
            assert len({lease.info.pid for lease in leases}) == 1
            children = [c for c in psutil.Process().children() if "runtime.worker" in " ".join(c.cmdline())]
            assert len(children) == 1
            (model,) = pool.loaded()
            assert (model.num_leases, model.idle_since) == (5, None)
            for lease in leases:
                lease.release()
                lease.release()
            (model,) = pool.loaded()
            assert model.num_leases == 0
            assert model.idle_since is not None

    run(scenario)


@pytest.mark.parametrize(
    ("engine", "files", "says"),
    [
        ("onnx", {}, r"genai_config\.json is missing"),
        ("onnx", {"genai_config.json": "garbage"}, "not valid JSON"),
        ("unheard-of", {}, "known are onnx and fake"),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path, engine: str, files: dict[str, str], says: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)

    async def scenario() -> None:
        async with new_pool() as pool:
            spec = LoadSpec("bad:1", folder, engine, EngineOptions())
            ends = await asyncio.gather(*(pool.acquire(spec, timeout_s=PATIENCE_S) for _ in range(2)), return_exceptions=True)
            for end in ends:
                with pytest.raises(NotReady, match=says) as caught:
                    raise end  # type: ignore[misc]
                assert caught.value.code == "load_failed"
            assert pool.loaded() == ()
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                assert await text_of(ask(lease, "others")) == "You said: others"

    run(scenario)


def test_whoever_does_not_want_to_wait_is_told_and_the_load_goes_on() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            with pytest.raises(NotReady, match="still loading after 0 s") as caught:
                await pool.acquire(SPEC, timeout_s=0)
            assert caught.value.code == "model_loading"
            assert caught.value.retry_after_s
            (model,) = pool.loaded()
            assert (model.state, model.info, model.loaded_at) == (ModelState.LOADING, None, None)
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S):
                assert pool.loaded()[0].state is ModelState.READY

    run(scenario)


# ---- the end ----


def test_an_unload_lets_requests_finish() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                answer = ask(lease, "[[count: 50]][[delay: 0.002]]")
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
        async with new_pool() as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                endless = ask(lease, "[[endless]]")
                await first_chunk(endless)
                await pool.unload(SPEC.label, grace_s=0.05)
                with pytest.raises(NotReady, match="was unloaded while the request ran"):
                    await text_of(endless)
            gone(lease.info.pid)
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                assert await text_of(ask(lease, "back")) == "You said: back"

    run(scenario, loop)


def test_a_model_on_its_way_out_is_listed_and_takes_nothing_new() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                endless = ask(lease, "[[endless]]")
                await first_chunk(endless)
                leaving = asyncio.create_task(pool.unload(SPEC.label, grace_s=PATIENCE_S))
                await asyncio.sleep(0)
                with pytest.raises(NotReady, match="being unloaded"):
                    await pool.acquire(SPEC, timeout_s=PATIENCE_S)
                assert [model.state for model in pool.loaded()] == [ModelState.UNLOADING]
                endless.abort()
                assert await leaving
            assert pool.loaded() == ()

    run(scenario)


def test_an_unload_during_the_load_tells_those_who_wait() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            waiting = asyncio.create_task(pool.acquire(SPEC, timeout_s=PATIENCE_S))
            while not pool.loaded():
                await asyncio.sleep(0)
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
            while not pool.loaded():
                await asyncio.sleep(0)
            impatient.cancel()
            with pytest.raises(asyncio.CancelledError):
                await impatient
            (await patient).release()

    run(scenario)


def test_a_closed_pool_takes_nothing_and_leaves_nothing() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            lease = await pool.acquire(SPEC, timeout_s=PATIENCE_S)
            endless = ask(lease, "[[endless]]")
            await first_chunk(endless)
            await pool.close(grace_s=0.05)
            with pytest.raises(NotReady, match="shutting down") as caught:
                await text_of(endless)
            assert caught.value.code == "draining"
            with pytest.raises(NotReady, match="shutting down"):
                await pool.acquire(SPEC, timeout_s=PATIENCE_S)
            gone(lease.info.pid)

    run(scenario)
