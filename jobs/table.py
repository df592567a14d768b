"""Every job of a home as it is now: those that have not ended as records in memory, the others as rows of the store.

Knows nothing of processes. Runs in one event loop; the store is called in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Executor
from datetime import UTC, datetime

from jobs.job import Job, JobEvent, JobStatus, no_job
from jobs.record import JobRecord
from jobs.store import JobStore
from jobs.task import JobKind

HEARTBEAT_S = 15.0
POLL_EVERY_S = 1.0  # of jobs that another process runs


def now() -> datetime:
    return datetime.now(UTC)


class JobTable:
    """on_change: called with each job whenever it was stored. writes: what runs the transactions; None: the loop's own threads."""

    def __init__(self, store: JobStore, on_change: Callable[[Job], None], writes: Executor | None = None) -> None:
        self._writes = writes
        self._store = store
        self._on_change = on_change
        self._records: dict[str, JobRecord] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self.is_closing = False

    async def load(self) -> tuple[JobRecord, ...]:
        """The records of all that the store has as not ended, which from now on are this process's."""
        for job in await asyncio.to_thread(self._store.unfinished):
            last = await asyncio.to_thread(self._store.last_number, job.id)
            self._records[job.id] = JobRecord(job, self._store, now, last, self._stored, self._writes)
        return self.records()

    async def add(self, job: Job) -> JobRecord:
        """A new job, which is stored when this returns, or will be."""
        await asyncio.get_running_loop().run_in_executor(self._writes, self._store.insert, [job])
        record = self._records[job.id] = JobRecord(job, self._store, now, 0, self._stored, self._writes)
        record.add_event("status", "The job is queued.", data={"status": str(job.status)})
        await record.store()
        return record

    async def delete(self, id_: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writes, self._store.delete, id_)

    def records(self) -> tuple[JobRecord, ...]:
        return tuple(self._records.values())

    def record(self, id_: str) -> JobRecord | None:
        """None when the job has ended, or there is none."""
        return self._records.get(id_)

    def active(self) -> tuple[Job, ...]:
        """The jobs that have not ended."""
        return tuple(record.job for record in self._records.values())

    async def job(self, id_: str, *, owner: str | None = None) -> Job:
        """owner: only a job of this owner; None: of any owner. Raises JobNotFound."""
        record = self._records.get(id_)
        job = record.job if record is not None else await asyncio.to_thread(self._store.job, id_)
        if job is None or owner not in (None, job.owner):
            raise no_job(id_)
        return job

    async def statuses(self, ids: Iterable[str]) -> dict[str, JobStatus]:
        """By id, without those that are gone."""
        found: dict[str, JobStatus] = {}
        for id_ in set(ids):
            record = self._records.get(id_)
            job = record.job if record is not None else await asyncio.to_thread(self._store.job, id_)
            if job is not None:
                found[id_] = job.status
        return found

    async def find(
        self,
        *,
        kind: JobKind | None = None,
        status: JobStatus | None = None,
        pipeline: str | None = None,
        owner: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[Job]:
        """Newest first. owner: as for `job`. Raises JobNotFound when `after` names none."""
        if after is not None:
            await self.job(after, owner=owner)
        found = await asyncio.to_thread(
            lambda: self._store.find(kind=kind, status=status, pipeline=pipeline, owner=owner, limit=limit, after=after)
        )
        return [record.job if (record := self._records.get(job.id)) else job for job in found]

    async def events(self, id_: str, after: int = 0, *, follow: bool = False) -> AsyncIterator[JobEvent | None]:
        """As `JobService.events`."""
        while True:
            job = await self.job(id_)
            while found := await asyncio.to_thread(self._store.events, id_, after):
                for event in found:
                    after = event.number
                    yield event
            record = self._records.get(id_)
            if not follow or job.status.is_final or self.is_closing:
                return
            if record is None:  # another process runs it
                await asyncio.sleep(POLL_EVERY_S)
            elif record.is_closed:
                return
            elif not await record.wait_beyond(after, HEARTBEAT_S):
                yield None

    async def count(self) -> dict[tuple[str, str], int]:
        """How many jobs there are now, by kind and status."""
        self._counts = await asyncio.to_thread(self._store.counts)
        return self._counts

    def counts(self) -> dict[tuple[str, str], int]:
        """What `count` found last; none before the first."""
        return self._counts

    async def close(self) -> None:
        """Stores what is not stored yet; whoever follows events goes on."""
        for record in self.records():
            await record.close()

    def _stored(self, job: Job) -> None:
        """A job that has ended is forgotten once the store has it."""
        if job.status.is_final:
            self._records.pop(job.id, None)
        self._on_change(job)
