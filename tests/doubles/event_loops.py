"""Runs a scenario on either event loop that the gateway may run on: they differ in what a dead process's pipes do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

Scenario = Callable[[], Coroutine[Any, Any, None]]
LOOPS = ["asyncio"] if sys.platform == "win32" else ["asyncio", "uvloop"]


def run(scenario: Scenario, loop: str = "asyncio") -> None:
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(scenario(), 60))
