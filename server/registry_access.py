"""The models as an event loop may use them: names from a snapshot in memory, and whatever waits in threads.

The snapshot is renewed by who follows other processes (`change_watch`), by each write of this process before it returns, and for a
request that does not find its model.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from model_registry.registry import Registry
from model_registry.snapshot import Snapshot
from server.write_thread import WriteThread

T = TypeVar("T")


class RegistryAccess:
    """Reads the models once when it is made; close() when done, off the event loop. snapshot: the newest one known."""

    def __init__(self, registry: Registry, writes: WriteThread) -> None:
        self._registry = registry
        self._writes = writes
        self._renewing = threading.Lock()
        self._reader = ThreadPoolExecutor(1, "registry-read")  # of its own: requests do not wait for others' files
        self.snapshot: Snapshot = registry.snapshot()

    def close(self) -> None:
        self._reader.shutdown()

    def renew(self) -> None:
        """Waits for the disk: not for the event loop. Raises RegistryError."""
        with self._renewing:  # else an older snapshot could take the place of a newer one
            self.snapshot = self._registry.snapshot()

    async def refresh(self) -> None:
        """What was committed before this call, by any process, is in the snapshot when it returns. Raises RegistryError."""
        await asyncio.get_running_loop().run_in_executor(self._reader, self.renew)

    async def write(self, change: Callable[[Registry], T], deadline_s: float | None = None) -> T:
        """`change(registry)` on the thread of writes; the snapshot has what it wrote when this returns.

        deadline_s: as of `WriteThread.write`. Raises what the change raises.
        """

        def run() -> T:
            try:
                return change(self._registry)
            finally:
                self.renew()

        return await self._writes.write(run, deadline_s)
