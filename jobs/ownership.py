"""Which process runs a home's jobs: the one that holds a lock, which the system releases however that process ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from filelock import FileLock, Timeout

from jobs.job import JobsElsewhere
from model_registry.disk import DAEMON_LOCK, PRIVATE_FILE, make_private_folder, storage_errors
from model_registry.errors import NotWritable, OutOfDisk

RETRY_EVERY_S = 5.0
_NOT_NOW = (JobsElsewhere, OutOfDisk, NotWritable)
_log = logging.getLogger("slmops.jobs")


class Ownership:
    """take_up: called once the jobs are this process's. Nothing is written before `acquire`. Runs in one event loop."""

    def __init__(self, home: Path, take_up: Callable[[], Awaitable[None]]) -> None:
        self._home = home
        self._path = home / DAEMON_LOCK
        self._lock = FileLock(self._path, thread_local=False, mode=PRIVATE_FILE)
        self._take_up = take_up
        self._acquiring = asyncio.Lock()
        self._waiting: asyncio.Task[None] | None = None
        self._is_elsewhere = False

    @property
    def is_elsewhere(self) -> bool:
        """Whether another process has the jobs, as far as is known."""
        return self._is_elsewhere and not self._lock.is_locked

    async def acquire(self) -> None:
        """Makes the home's jobs this process's, at once. Raises JobsElsewhere, OutOfDisk, NotWritable."""
        async with self._acquiring:
            if self._lock.is_locked:
                return
            if not await asyncio.to_thread(self._try_lock):
                advice = "Send the request to that one, or stop it: this one then takes over."
                raise JobsElsewhere(f"Another slmops process runs the jobs of {self._home}. {advice}")
            await self._take_up()

    async def acquire_or_wait(self) -> None:
        """As `acquire`; what refuses now is tried again until it succeeds, in the background."""
        try:
            await self.acquire()
        except _NOT_NOW as error:
            self._is_elsewhere = isinstance(error, JobsElsewhere)
            _log.warning("no jobs run in this process for now", extra={"fields": {"why": error.message}})
            self._waiting = asyncio.create_task(self._retry(), name="wait for jobs")

    def stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    async def release(self) -> None:
        await asyncio.to_thread(self._lock.release)

    async def _retry(self) -> None:
        while not self._lock.is_locked:
            await asyncio.sleep(RETRY_EVERY_S)
            with contextlib.suppress(*_NOT_NOW):
                await self.acquire()

    def _try_lock(self) -> bool:
        """Whether the lock is this process's now. Waits for the disk. Raises OutOfDisk, NotWritable."""
        make_private_folder(self._path.parent)
        try:
            with storage_errors(self._path.parent, 1 << 12, "running jobs"):
                self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True
