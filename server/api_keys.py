"""The keys as an event loop may use them: a snapshot in memory, renewed whenever anybody changed them.

Requests read the snapshot; the database is read by who follows other processes (`change_watch`), and after each change of this one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import TypeVar

from model_registry.keys import ApiKey, KeyStore, NewKey
from server.principal import AccessScope
from server.write_thread import WriteThread

T = TypeVar("T")


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
