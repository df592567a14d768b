"""How late the event loop runs its timers: what every request waits for, beside its own work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

EVERY_S = 1.0


async def measure_lag(observe: Callable[[float], object], every_s: float = EVERY_S) -> None:
    """Reports the lag in seconds, once in `every_s` until it is cancelled. A call that holds the loop is one long lag."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every_s
        await asyncio.sleep(every_s)
        observe(max(0.0, loop.time() - due))
