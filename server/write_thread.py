"""The thread on which the gateway writes to its database: one write after another, none of them on the event loop.

Its writes never wait for each other's locks, only for their turn. Other processes write beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
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
