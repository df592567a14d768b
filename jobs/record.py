"""One job that has not ended: its newest value, the events that are not stored yet, and who watches it.

Stores at most twice a second while it runs, and at once when its status moves. What the database
refuses, because the disk is full, is kept here and retried: the job continues meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from datetime import datetime
from typing import Any

from jobs.job import Failure, Job, JobEvent, JobStatus, Progress
from jobs.lifecycle import move
from jobs.store import JobStore
from jobs.task import Outcome
from model_registry.errors import RegistryError

STORE_EVERY_S = 0.5
STORE_AGAIN_S = 5.0
_log = logging.getLogger("slmops.jobs")


class JobRecord:
    """now: the time, UTC. last_number: of its newest stored event. num_failures: attempts that failed since its last checkpoint.

    on_change: called with the job whenever it is stored.
    writes: what runs the transactions; None: the event loop's own threads.
    """

    def __init__(
        self,
        job: Job,
        store: JobStore,
        now: Callable[[], datetime],
        last_number: int,
        on_change: Callable[[Job], None],
        writes: Executor | None = None,
    ) -> None:
        self.job = job
        self.is_closed = False
        self.num_failures = 0
        self._store = store
        self._now = now
        self._on_change = on_change
        self._writes = writes
        self._number = last_number
        self._stored_number = last_number
        self._events: list[JobEvent] = []
        self._refusal: str | None = None
        self._storing = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._timer: asyncio.TimerHandle | None = None
        self._begun: asyncio.Task[None] | None = None  # held, lest it be collected

    @property
    def refusal(self) -> str | None:
        """Why the database does not take the job's changes, in whole sentences; None while it does."""
        return self._refusal

    def add_event(self, type_: str, message: str = "", *, level: str = "info", data: Mapping[str, Any] | None = None) -> None:
        """One more event, stored with the next `store`."""
        self._number += 1
        self._events.append(JobEvent(self.job.id, self._number, self._now(), type_, level, message, dict(data or {})))

    def progress(self, progress: Progress) -> None:
        self.job = replace(self.job, progress=progress)

    async def move(self, to: JobStatus, *, outcome: Outcome | None = None, failure: Failure | None = None) -> None:
        """Raises WrongStatus."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.job = move(self.job, to, self._now(), outcome=outcome, failure=failure)
        level = "error" if to is JobStatus.FAILED else "warning" if failure else "info"
        failure = self.job.failure if failure else None
        data = {"status": str(to)} | ({"code": failure.code} if failure else {})
        self.add_event("status", failure.message if failure else f"The job is {to}.", level=level, data=data)
        await self.store()

    def store_soon(self) -> None:
        """What changed is stored within half a second."""
        self._store_in(STORE_EVERY_S)

    async def store(self) -> None:
        """What changed before is stored when it returns, or will be retried. Callers wait for a refusing database once.

        Cancelled, it is stored all the same.
        """
        await asyncio.shield(asyncio.create_task(self._store_once(), name=f"store {self.job.id}"))

    async def _store_once(self) -> None:
        if self._refusal is None:
            async with self._storing:
                if self._refusal is None:
                    await self._save()
        if self._refusal is not None:
            self._store_in(STORE_AGAIN_S)

    def _store_in(self, delay_s: float) -> None:
        if self._timer is None and not self.is_closed:
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._begin_store)

    def _begin_store(self) -> None:
        """One at a time: calls that wait for the database do not queue up."""
        self._timer = None
        if self._begun is not None and not self._begun.done():
            self._store_in(STORE_EVERY_S)
        else:
            self._begun = asyncio.create_task(self._try_again(), name=f"store {self.job.id}")

    async def _try_again(self) -> None:
        async with self._storing:
            await self._save()
        if self._refusal is not None:
            self._store_in(STORE_AGAIN_S)

    async def _save(self) -> None:
        job, events, self._events = self.job, self._events, []
        try:
            await asyncio.get_running_loop().run_in_executor(self._writes, self._store.save, job, events)
        except RegistryError as error:
            self._events = [*events, *self._events]
            self._refusal = error.message
            _log.warning("a job cannot be stored", extra={"fields": {"job": self.job.id, "why": error.message}})
            return
        self._refusal = None
        self._stored_number += len(events)
        self._on_change(job)
        async with self._changed:
            self._changed.notify_all()

    async def close(self) -> None:
        """Nothing more is reported: whoever waits goes on. What was refused is tried a last time."""
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        async with self._storing:
            if self._refusal is not None:
                await self._save()
        async with self._changed:
            self._changed.notify_all()

    async def wait_beyond(self, number: int, timeout_s: float) -> bool:
        """Until an event with a higher number is stored, or nothing more is reported; False when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self._stored_number > number or self.is_closed)
        return self._stored_number > number or self.is_closed
