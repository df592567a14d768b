"""The two threads of the gateway's database: one carries out all writes in order, one sees what other processes have written."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from model_registry.database import Database

LOCK_WAIT_S = 5.0  # how long an HTTP request waits for other writers
P = ParamSpec("P")
T = TypeVar("T")


class WriteThread(Executor):
    """Carries out what is submitted, in order. shutdown() waits until all of it is done.

    A write waits for writers in other processes until the database's lock_timeout_s after it was submitted, however long its turn
    took to come; then it fails with RegistryBusy. So writes in line behind a busy database fail together, not one after another.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, "database-write")

    def submit(self, change: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> Future[T]:
        """As of any executor, the future can be cancelled until its turn. A write must not wait for another one's turn."""
        return self._submit(partial(change, *args, **named), None)

    async def write(self, change: Callable[[], T], deadline_s: float | None = None) -> T:
        """What `change` returns or raises. Cancelled, it is carried out all the same.

        deadline_s: of time.monotonic, until when other writers are waited for, instead of the default.
        """
        return await asyncio.shield(asyncio.wrap_future(self._submit(change, deadline_s)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._thread.shutdown(wait, cancel_futures=cancel_futures)

    def _submit(self, change: Callable[[], T], deadline_s: float | None) -> Future[T]:
        until_s = time.monotonic() + self._database.lock_timeout_s if deadline_s is None else deadline_s

        def run() -> T:
            with self._database.waiting(max(0.0, until_s - time.monotonic())):
                return change()

        return self._thread.submit(run)


LOOK_EVERY_S = 0.1
_log = logging.getLogger("slmops.database")


@dataclass(frozen=True, slots=True)
class Renewal:
    """run: reads anew what has changed; cheap when nothing has. complaint: the log's line when it fails after it had worked."""

    run: Callable[[], None]
    complaint: str


class ChangeWatch:
    """Renews what is held in memory of the database, ten times a second, since other processes write to it too.

    start() to follow, close() to end; both off the event loop or before it. What cannot be read stays as it was.
    """

    def __init__(self, *renewals: Renewal) -> None:
        self._renewals = renewals
        self._failed: set[Renewal] = set()
        self._wake = threading.Event()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._watch, name="database-watch", daemon=True)
        self._thread.start()

    def look_soon(self) -> None:
        """Somebody has probably written: looks at once, off the caller's thread."""
        self._wake.set()

    def close(self) -> None:
        self._is_closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._is_closing:
            self._wake.wait(LOOK_EVERY_S)
            self._wake.clear()
            for renewal in self._renewals:
                self._renew(renewal)

    def _renew(self, renewal: Renewal) -> None:
        try:
            renewal.run()
            self._failed.discard(renewal)
        except Exception as error:
            if renewal not in self._failed:
                _log.error(renewal.complaint, exc_info=error)
            self._failed.add(renewal)
