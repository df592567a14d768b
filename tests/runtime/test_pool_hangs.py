"""Workers that hang, in a step or altogether, are ended; their requests end with a clear error, the next one works."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from runtime.pool import local
from runtime.pool.loaded_model import Died, PoolEvent
from runtime.pool.local import LocalWorkers
from runtime.pool.watchdog import Patience
from runtime.protocol.errors import EngineDead
from tests.doubles.event_loops import run
from tests.doubles.pool_bench import PATIENCE_S, SPEC, gone, new_pool, start_chat, text_of

pytestmark = pytest.mark.api


def test_a_step_that_never_returns() -> None:
    async def scenario() -> None:
        async with new_pool(start_worker=LocalWorkers(Patience(step_s=0.2))) as pool:
            events: list[PoolEvent] = []
            pool.listeners.append(events.append)
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                with pytest.raises(EngineDead, match=r"was ended because a step took longer than 0\.2 s.*Retry"):
                    await text_of(start_chat(lease, "[[hang]]"))
                gone(lease.info.pid)
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                assert await text_of(start_chat(lease, "again")) == "You said: again"
            assert [event.why for event in events if isinstance(event, Died)] == [
                "it was ended because a step took longer than 0.2 s."
            ]

    run(scenario)


@pytest.mark.skipif(sys.platform == "win32", reason="a stop is a signal")
def test_a_process_that_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with new_pool(start_worker=LocalWorkers(Patience(silent_looks=2))) as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                os.kill(lease.info.pid, signal.SIGSTOP)
                monkeypatch.setattr(local, "LOOK_EVERY_S", 0.01)
                with pytest.raises(EngineDead, match="no sign of life"):
                    await text_of(start_chat(lease, "hello?"))
                monkeypatch.undo()
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                assert await text_of(start_chat(lease, "again")) == "You said: again"

    run(scenario)


def test_a_worker_that_computes_for_long_is_not_taken_for_one_that_hangs() -> None:
    """One step is longer than all the silence that is borne, but shorter than a step may be."""

    async def scenario() -> None:
        async with new_pool(start_worker=LocalWorkers(Patience(step_s=30.0, silent_looks=1))) as pool:
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                assert await text_of(start_chat(lease, "[[reply: done]][[prefill-delay: 2.5]]")) == "done"
            assert pool.loaded()[0].num_restarts == 0

    run(scenario)
