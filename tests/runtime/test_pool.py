"""The pool with real workers and the fake model: requests stream, are refused, are shed, leave."""

from __future__ import annotations

import os

import pytest

from runtime.protocol.errors import InvalidRequest, OverCapacity, StepFailed
from runtime.protocol.events import Chunk, Finished, FinishReason, Started
from runtime.protocol.messages import EngineOptions
from tests.doubles.event_loops import LOOPS, run
from tests.doubles.pool_bench import PATIENCE_S, SPEC, first_chunk, process_pool, spec_of, start_chat, text_of

pytestmark = pytest.mark.api


@pytest.mark.parametrize("loop", LOOPS)
def test_a_request_streams_and_ends(loop: str) -> None:
    async def scenario() -> None:
        async with process_pool() as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                assert lease.info.pid != os.getpid()
                events = [event async for event in start_chat(lease, "Hello €")]
            assert isinstance(events[0], Started)
            assert isinstance(events[-1], Finished)
            assert "".join(e.text for e in events if isinstance(e, Chunk)) == "You said: Hello €"
            assert events[-1].reason is FinishReason.STOP

    run(scenario, loop)


def test_a_refused_request_is_only_its_own_failure() -> None:
    async def scenario() -> None:
        async with process_pool() as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                running = start_chat(lease, "[[count: 300]]")
                with pytest.raises(InvalidRequest, match="maximum context length is 8192"):
                    await text_of(start_chat(lease, "x" * 9000))
                assert (await text_of(running)).endswith(" 300")

    run(scenario)


def test_an_abort_frees_the_row() -> None:
    """With one slot, the next request is answered only if the endless one has left."""

    async def scenario() -> None:
        async with process_pool() as pool:
            spec = spec_of("one:1", EngineOptions(num_slots=1, context_length=1 << 22))
            with await pool.acquire(spec, timeout_s=PATIENCE_S) as lease:
                endless = start_chat(lease, "[[endless]]")
                await first_chunk(endless)
                endless.abort()
                assert await text_of(start_chat(lease, "next")) == "You said: next"

    run(scenario)


def test_a_full_queue_sheds() -> None:
    async def scenario() -> None:
        async with process_pool() as pool:
            options = EngineOptions(num_slots=1, max_waiting=1, context_length=1 << 22)
            with await pool.acquire(spec_of("one:1", options), timeout_s=PATIENCE_S) as lease:
                running, waiting, shed = (start_chat(lease, "[[endless]]") for _ in range(3))
                with pytest.raises(OverCapacity, match="queue is full"):
                    await text_of(shed)
                waiting.abort()
                running.abort()

    run(scenario)


def test_a_step_that_fails_costs_its_requests_and_not_the_worker(capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        async with process_pool() as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                with pytest.raises(StepFailed, match="may be retried"):
                    await text_of(start_chat(lease, "[[fail]]"))
                assert await text_of(start_chat(lease, "again")) == "You said: again"
                assert pool.loaded()[0].num_restarts == 0

    run(scenario)
    printed = capfd.readouterr().err
    assert "RuntimeError in a step" in printed
    assert "[[fail]]" not in printed
