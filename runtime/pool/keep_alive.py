"""Counts the holders of a model, and how long it stays without any. Knows no model. All methods belong to one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from runtime.pool.loaded_model import FOREVER


class KeepAlive:
    """on_expired(): called when it was not held for `seconds`.

    Counts only between `begin_idle` and the next `hold`, and before `stop`.

    idle_since, expires_at: Unix times, None while it is held; expires_at also when it stays for ever. last_used: monotonic.
    nobody: set while there is no holder, or by a caller that will not wait any longer.
    """

    def __init__(self, seconds: float, *, pinned: bool, on_expired: Callable[[], None]) -> None:
        self.seconds = seconds
        self.pinned = pinned
        self.num_leases = 0
        self.last_used = time.monotonic()
        self.idle_since: float | None = None
        self.expires_at: float | None = None
        self.nobody = asyncio.Event()
        self.nobody.set()
        self._on_expired = on_expired
        self._timer: asyncio.TimerHandle | None = None

    def hold(self) -> None:
        self.num_leases += 1
        self.nobody.clear()
        self.stop()

    def release(self) -> None:
        self.num_leases -= 1
        self.last_used = time.monotonic()
        if self.num_leases == 0:
            self.nobody.set()

    def begin_idle(self) -> None:
        self.idle_since = time.time()
        self._arm()

    def change(self, *, seconds: float | None = None, pinned: bool | None = None) -> None:
        """Takes effect at once; an idle model's time starts again."""
        self.seconds = self.seconds if seconds is None else seconds
        self.pinned = self.pinned if pinned is None else pinned
        if self.idle_since is not None:
            self._arm()

    def stop(self) -> None:
        self._cancel()
        self.idle_since = None

    def _arm(self) -> None:
        self._cancel()
        if not self.pinned and self.seconds != FOREVER:
            self.expires_at = time.time() + self.seconds
            self._timer = asyncio.get_running_loop().call_later(self.seconds, self._on_expired)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.expires_at = None
