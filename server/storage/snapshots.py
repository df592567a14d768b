"""What the gateway reads of models and of keys: snapshots in memory, renewed when the database has changed.

Requests read the snapshots. They are renewed by the thread that follows other processes (`ChangeWatch`), by each write of this
process before it returns, and that of models also for a request that does not find its model.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from model_registry.keys import ApiKey, KeyStore, NewKey
from model_registry.registry import Registry
from model_registry.snapshot import Snapshot
from server.principal import AccessScope
from server.storage.threads import WriteThread

T = TypeVar("T")


class RegistryAccess:
    """close() when done, off the event loop. snapshot: the newest one known.

    serves: whether requests name its models: then they are read when it is made, else nothing is made or opened before a write.
    """

    def __init__(self, registry: Registry, writes: WriteThread, *, serves: bool = True) -> None:
        self._registry = registry
        self._writes = writes
        self._renewing = threading.Lock()
        self._reader = ThreadPoolExecutor(1, "registry-read")  # of its own: requests do not wait for others' files
        self.snapshot: Snapshot = registry.snapshot() if serves else Snapshot(-1, MappingProxyType({}))

    @property
    def home(self) -> Path:
        return self._registry.home

    @property
    def why_read_only(self) -> str | None:
        """As of the registry."""
        return self._registry.why_read_only

    def close(self) -> None:
        self._reader.shutdown()

    def renew(self) -> None:
        """Waits for the disk: not for the event loop. Raises RegistryError."""
        with self._renewing:  # else an older snapshot could take the place of a newer one
            if self._registry.database.exists():
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

    async def collect_garbage(self) -> int:
        """Bytes freed. In a thread of its own: other writes wait only while files are removed that they might name.

        Raises RegistryBusy, NotWritable, OutOfDisk.
        """
        return await asyncio.to_thread(self._registry.collect_garbage)


class ApiKeys:
    """Reads the keys once when it is made."""

    def __init__(self, store: KeyStore, writes: WriteThread) -> None:
        self._store = store
        self._writes = writes
        self._renewing = threading.Lock()
        self._known = store.all_keys()

    def known(self) -> tuple[ApiKey, ...]:
        """All, also expired and revoked ones; as of a moment ago when another process changed them."""
        return self._known

    def renew(self) -> None:
        """Waits for the disk: not for the event loop. Raises RegistryError."""
        with self._renewing:  # else an older look could end after a newer one
            self._known = self._store.all_keys()

    async def refresh(self) -> None:
        await asyncio.to_thread(self.renew)

    async def create(self, name: str, scopes: Iterable[AccessScope], expires_at: datetime | None) -> NewKey:
        """Holds for the next request. Raises InvalidKeyName, KeyNameTaken, RegistryBusy."""
        return await self._change(partial(self._store.create, name, [scope.value for scope in scopes], expires_at))

    async def revoke(self, id_or_name: str) -> ApiKey:
        """Holds for the next request. Raises KeyNotFound, RegistryBusy."""
        return await self._change(partial(self._store.revoke, id_or_name))

    async def _change(self, change: Callable[[], T]) -> T:
        def run() -> T:
            changed = change()
            self.renew()
            return changed

        return await self._writes.write(run)
