"""The life of the daemon: serving, draining, closed; and how many requests are open. Knows no signals, no models."""

from __future__ import annotations

import asyncio
from enum import StrEnum


class Phase(StrEnum):
    """SERVING: everything is answered. DRAINING: only what was begun, and probes. CLOSED: nothing any more."""

    SERVING = "serving"
    DRAINING = "draining"
    CLOSED = "closed"


class Lifecycle:
    """One per app, on one event loop. `drain` and `close` are the only places of transition; there is no way back."""

    def __init__(self) -> None:
        self.phase = Phase.SERVING
        self.num_open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_serving(self) -> bool:
        return self.phase is Phase.SERVING

    def drain(self) -> None:
        if self.phase is Phase.SERVING:
            self.phase = Phase.DRAINING

    def close(self) -> None:
        self.phase = Phase.CLOSED

    def request_begins(self) -> None:
        self.num_open += 1
        self._idle.clear()

    def request_ends(self) -> None:
        self.num_open -= 1
        if self.num_open == 0:
            self._idle.set()

    async def wait_idle(self, timeout_s: float) -> bool:
        """True when no request is open, False when some still are after timeout_s."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True
