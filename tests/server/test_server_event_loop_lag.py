"""What the lag of the event loop shows: nothing while timers run in time, and the length of a call that holds the loop."""

from __future__ import annotations

import asyncio

import pytest

from server.metrics.event_loop_lag import measure_lag

pytestmark = pytest.mark.unit


class StepClock(asyncio.SelectorEventLoop):
    """An event loop whose time is what a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now


async def lags(held_s: list[float]) -> list[float]:
    """What is reported when the loop is held for so long during each of its sleeps of one second."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, StepClock)
    reported: asyncio.Queue[float] = asyncio.Queue()
    measuring = asyncio.create_task(measure_lag(reported.put_nowait, every_s=1.0))
    found = []
    for held in held_s:
        await asyncio.sleep(0)
        loop.now += 1.0 + held
        found.append(await reported.get())
    measuring.cancel()
    await asyncio.wait([measuring])
    return found


def test_a_lag_is_what_a_timer_was_late_by() -> None:
    with asyncio.Runner(loop_factory=StepClock) as runner:
        assert runner.run(lags([0.0, 3.0, 0.25])) == [0.0, 3.0, 0.25]
