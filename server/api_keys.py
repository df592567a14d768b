"""The registry's keys as the daemon knows them: a snapshot in memory, renewed whenever anybody changed them.

Requests read the snapshot; every look at the database is made in another thread than the event loop's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from model_registry.keys import ApiKey, KeyStore, NewKey
from server.principal import AccessScope
from server.registry_access import LOCK_WAIT_S

LOOK_EVERY_S = 1.0  # at what other processes changed
_log = logging.getLogger("slmops.keys")


class ApiKeys:
    """Reads the keys once when it is made. `watch` while serving, `close` at the end."""

    def __init__(self, home: Path) -> None:
        self._store = KeyStore(home, lock_timeout_s=LOCK_WAIT_S)
        self._renewing = asyncio.Lock()
        self._trouble: str | None = None
        self._known = self._store.all_keys()
        self._store.close()  # whoever only makes an app keeps no file open

    def known(self) -> tuple[ApiKey, ...]:
        """All, also expired and revoked ones; as of a second ago when another process changed them."""
        return self._known

    async def create(self, name: str, scopes: Iterable[AccessScope], expires_at: datetime | None) -> NewKey:
        """Holds for the next request. Raises InvalidKeyName, KeyNameTaken, RegistryBusy."""
        made = await asyncio.to_thread(self._store.create, name, [scope.value for scope in scopes], expires_at)
        await self.refresh()
        return made

    async def revoke(self, id_or_name: str) -> ApiKey:
        """Holds for the next request. Raises KeyNotFound, RegistryBusy."""
        revoked = await asyncio.to_thread(self._store.revoke, id_or_name)
        await self.refresh()
        return revoked

    async def refresh(self) -> None:
        async with self._renewing:  # else an older look could end after a newer one
            self._known = await asyncio.to_thread(self._store.all_keys)

    async def watch(self, every_s: float = LOOK_EVERY_S) -> None:
        """Until it is cancelled. While the keys cannot be read, those that were known hold, and the log says so once."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.refresh()
                self._trouble = None
            except Exception as error:
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    _log.error("API keys cannot be read; those known before hold", exc_info=error)

    async def close(self) -> None:
        await asyncio.to_thread(self._store.close)
