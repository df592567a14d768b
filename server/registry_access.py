"""The registry as an event loop may use it: names from a snapshot in memory, and whatever waits in threads of its own.

A thread asks the database ten times a second whether anybody has written, and swaps the snapshot when it was so. Writers of this
process, and requests that do not find their model, renew it before they go on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from model_registry.errors import RegistryError
from model_registry.registry import Registry
from model_registry.snapshot import Snapshot

LOCK_WAIT_S = 5.0  # what an HTTP request waits for other writers
LOOK_EVERY_S = 0.1
_NUM_WRITERS = 8  # calls that may wait for the lock at a time
T = TypeVar("T")
_log = logging.getLogger("slmops.registry")


class RegistryAccess:
    """start() to follow other processes, close() when done; both off the loop or before it. snapshot: the newest one known."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._renewing = threading.Lock()
        self._wake = threading.Event()
        self._is_closing = False
        self._watcher: threading.Thread | None = None
        self._writers = ThreadPoolExecutor(_NUM_WRITERS, "registry-write")
        self._reader = ThreadPoolExecutor(1, "registry-read")  # of its own: reads do not wait behind writers
        self.snapshot: Snapshot = registry.snapshot()

    @property
    def why_read_only(self) -> str | None:
        """Why nothing can be written, and what to do; None where it can."""
        return self._registry.why_read_only

    def start(self) -> None:
        self._watcher = threading.Thread(target=self._watch, name="registry-watch", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Waits for writes in progress."""
        self._is_closing = True
        self._wake.set()
        if self._watcher is not None:
            self._watcher.join()
        self._writers.shutdown()
        self._reader.shutdown()
        self._registry.close()

    def look_soon(self) -> None:
        """Somebody has probably written: the snapshot is renewed at once, off the caller's thread."""
        self._wake.set()

    async def refresh(self) -> None:
        """What was committed before this call, by any process, is in the snapshot when it returns. Raises RegistryError."""
        await asyncio.get_running_loop().run_in_executor(self._reader, self._renew)

    async def write(self, change: Callable[[Registry, float], T], deadline_s: float | None = None) -> T:
        """`change(registry, wait_s)` in a thread; the snapshot has what it wrote when this returns.

        wait_s: how long it may wait for other writers. deadline_s: of time.monotonic, when that wait is over; default: in
        LOCK_WAIT_S. Raises what the change raises. Cancelled, the change goes on.
        """
        deadline_s = time.monotonic() + LOCK_WAIT_S if deadline_s is None else deadline_s

        def run() -> T:
            try:
                return change(self._registry, max(0.0, deadline_s - time.monotonic()))
            finally:
                self._renew()

        return await asyncio.get_running_loop().run_in_executor(self._writers, run)

    def _renew(self) -> None:
        with self._renewing:  # else an older snapshot could take the place of a newer one
            self.snapshot = self._registry.snapshot()

    def _watch(self) -> None:
        is_well = True
        while not self._is_closing:
            self._wake.wait(LOOK_EVERY_S)
            self._wake.clear()
            try:
                self._renew()
                is_well = True
            except RegistryError as error:
                if is_well:
                    _log.warning("the registry cannot be read; serving what was there", extra={"fields": {"why": error.message}})
                is_well = False
