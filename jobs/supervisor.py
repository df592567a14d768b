"""Runs jobs: starts what is to run, and decides what follows when a process ends.

Owns every job that has not ended. One process at a time owns a home's jobs: another waits until it may. Runs in one event loop.
Which job starts is `dispatch`, which moves are possible `lifecycle`, what the end of a process means `verdict`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.admission import Admission
from jobs.attempt import Attempt, End
from jobs.dispatch import plan_dispatch
from jobs.job import Failure, InvalidJob, Job, JobError, JobKind, JobsElsewhere, JobStatus, Problem, WrongStatus, no_job
from jobs.limits import JobLimits
from jobs.messages import Start
from jobs.ownership import Ownership
from jobs.record import JobRecord
from jobs.references import jobs_in, resolved
from jobs.starting import Starter
from jobs.store import JobStore
from jobs.tasks.protocol import StopReason
from jobs.verdict import judge
from model_registry.errors import NotWritable, OutOfDisk, RegistryError

LOG = "log.txt"
OWN_EVERY_S = 5.0
_CODES = {OutOfDisk: "out_of_disk", NotWritable: "not_writable"}
_NOT_NOW = (JobsElsewhere, OutOfDisk, NotWritable)
_log = logging.getLogger("slmops.jobs")


def now() -> datetime:
    return datetime.now(UTC)


class Supervisor:
    """start() before use, close() when done. tasks: the module that knows the kinds. admission: what params may touch.

    on_change: told of each job whenever it is stored. Raises JobNotFound, WrongStatus and JobsElsewhere as `JobQueue` says.
    """

    def __init__(
        self,
        store: JobStore,
        limits: JobLimits,
        *,
        tasks: str,
        admission: Admission,
        on_change: Callable[[Job], None],
        writes: Executor | None = None,
    ) -> None:
        home = self._home = store.home
        self._store = store
        self._writes = writes
        self._limits = limits
        self._tasks = tasks
        self._starter = Starter(home, limits, tasks, admission)
        self._on_change = on_change
        self._records: dict[str, JobRecord] = {}
        self._attempts: dict[str, Attempt] = {}
        self._failures: dict[str, int] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._retries: set[asyncio.Task[None]] = set()
        self._dispatching = asyncio.Lock()
        self._ownership = Ownership(home)
        self._owning = asyncio.Lock()
        self._waiting: asyncio.Task[None] | None = None
        self._is_elsewhere = False
        self._closing = False

    async def start(self) -> None:
        """Takes up what an earlier daemon left, if there is any; later if another process has it, or nothing can be written."""
        try:
            if await asyncio.to_thread(self._store.exists):
                await self.own()
        except _NOT_NOW as error:
            self._is_elsewhere = isinstance(error, JobsElsewhere)
            _log.warning("no jobs run in this process for now", extra={"fields": {"why": error.message}})
            self._waiting = asyncio.create_task(self._wait_for_jobs(), name="wait for jobs")

    @property
    def is_elsewhere(self) -> bool:
        """Whether another process has the jobs, as far as is known."""
        return self._is_elsewhere and not self._ownership.is_mine

    @property
    def is_closing(self) -> bool:
        return self._closing

    async def own(self) -> None:
        """Makes the home's jobs this process's: those that ran are queued again, and go on from their checkpoints.

        Raises JobsElsewhere.
        """
        async with self._owning:
            if self._ownership.is_mine:
                return
            if not await asyncio.to_thread(self._ownership.take):
                advice = "Ask that one, or end it: this one then takes over."
                raise JobsElsewhere(f"Another slmops process runs the jobs of {self._home}. {advice}")
            await self._take_up()

    async def _take_up(self) -> None:
        for job in await asyncio.to_thread(self._store.unfinished):
            last = await asyncio.to_thread(self._store.last_number, job.id)
            record = self._records[job.id] = JobRecord(job, self._store, now, last, self._stored, self._writes)
            if job.status is JobStatus.RUNNING:
                await record.move(JobStatus.INTERRUPTED)
            if record.job.status is JobStatus.INTERRUPTED:
                await record.move(JobStatus.QUEUED)
            self._on_change(record.job)
        await self._dispatch()

    async def _wait_for_jobs(self) -> None:
        while not self._ownership.is_mine:
            await asyncio.sleep(OWN_EVERY_S)
            with contextlib.suppress(*_NOT_NOW):
                await self.own()

    async def close(self) -> None:
        """Ends the processes; their jobs go on when a daemon starts again."""
        self._closing = True
        if self._waiting is not None:
            self._waiting.cancel()
        for attempt in self._attempts.values():
            attempt.stop(StopReason.PAUSE, self._limits.close_grace_s)
        for retry in self._retries:
            retry.cancel()
        if ending := self._running | self._retries:
            await asyncio.wait(ending)
        for record in tuple(self._records.values()):
            await record.close()
        await asyncio.to_thread(self._ownership.give_back)

    def active(self) -> tuple[Job, ...]:
        """Those that have not ended."""
        return tuple(record.job for record in self._records.values())

    def record(self, id_: str) -> JobRecord | None:
        """None when the job has ended, or there is none."""
        return self._records.get(id_)

    async def job(self, id_: str) -> Job:
        """Raises JobNotFound."""
        record = self._records.get(id_)
        job = record.job if record is not None else await asyncio.to_thread(self._store.job, id_)
        if job is None:
            raise no_job(id_)
        return job

    async def take(self, job: Job) -> None:
        """A new job, not stored yet. Raises JobsElsewhere."""
        await self.own()
        await asyncio.get_running_loop().run_in_executor(self._writes, self._store.insert, [job])
        record = self._records[job.id] = JobRecord(job, self._store, now, 0, self._stored, self._writes)
        record.tell("status", "The job is queued.", data={"status": str(job.status)})
        await record.store()
        await self._dispatch()

    async def end(self, id_: str, to: JobStatus, reason: StopReason) -> Job:
        await self.own()
        job = await self.job(id_)
        attempt, record = self._attempts.get(id_), self._records.get(id_)
        if attempt is not None:
            attempt.stop(reason)
            await attempt.over.wait()
        elif record is not None:
            await record.move(to)
        else:
            raise WrongStatus(f"The job {id_} is {job.status}: it has ended.")
        await self._dispatch()
        return await self.job(id_)

    async def resume(self, id_: str) -> Job:
        """Queues a paused job again. Raises JobNotFound, WrongStatus, JobsElsewhere."""
        await self.own()
        job = await self.job(id_)
        if job.status is not JobStatus.PAUSED:
            raise WrongStatus(f"The job {id_} is {job.status}; only a paused job can be resumed.")
        await self._records[id_].move(JobStatus.QUEUED)
        await self._dispatch()
        return await self.job(id_)

    def folder(self, id_: str) -> Path:
        """The job's own folder; its task writes in `WORK` there."""
        return self._home / "jobs" / id_

    async def admit(self, kind: JobKind, params: Mapping[str, Any]) -> None:
        """Raises InvalidJob with what of the params the configuration does not allow."""
        await self._starter.admit(kind, params)

    async def start_of(
        self, id_: str, kind: JobKind, params: Mapping[str, Any], folder: Path, *, attempt: int = 1, plan: bool = False
    ) -> Start:
        """With what the params refer to in place of the references. Raises InvalidJob, JobNotFound, OutOfDisk, NotWritable."""
        made = {need: await self.job(need) for need in jobs_in(params)}
        known = resolved(params, lambda need: _version_made_by(made[need]))
        return await self._starter.start(id_, kind, known, folder, attempt=attempt, plan=plan)

    # ---- inside ----

    async def _dispatch(self) -> None:
        """Starts what is to start, and ends what can never start."""
        async with self._dispatching:
            while not self._closing:
                jobs = [record.job for record in self._records.values()]
                decision = plan_dispatch(jobs, await self._statuses(jobs), self._limits.max_running)
                for id_, (status, failure) in decision.doomed.items():
                    await self._records[id_].move(status, failure=failure)
                for id_ in decision.start:
                    await self._begin(self._records[id_])
                if not decision.doomed:
                    return

    async def _statuses(self, jobs: Sequence[Job]) -> dict[str, JobStatus]:
        needed = {need for job in jobs for need in job.needs}
        found = {need: await asyncio.to_thread(self._store.job, need) for need in needed if need not in self._records}
        ended = {id_: job.status for id_, job in found.items() if job is not None}
        return ended | {need: self._records[need].job.status for need in needed if need in self._records}

    async def _begin(self, record: JobRecord) -> None:
        id_ = record.job.id
        await record.move(JobStatus.RUNNING)
        task = asyncio.create_task(self._run(record), name=f"job {id_}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, record: JobRecord) -> None:
        job = record.job
        try:
            start = await self.start_of(job.id, job.kind, job.params, self.folder(job.id), attempt=job.attempt)
        except (JobError, RegistryError) as error:
            if _is_due(job, record):
                await record.move(JobStatus.FAILED, failure=Failure(_CODES.get(type(error), "invalid_job"), error.message))
        else:
            if _is_due(job, record):
                await self._attempt(record, start)
        await self._dispatch()

    async def _attempt(self, record: JobRecord, start: Start) -> None:
        id_ = record.job.id
        attempt = self._attempts[id_] = Attempt(record, start, self.folder(id_) / LOG, self._tasks)
        try:
            await self._follow(record, attempt, await attempt.run())
        finally:
            del self._attempts[id_]
            attempt.over.set()

    async def _follow(self, record: JobRecord, attempt: Attempt, end: End) -> None:
        """What its end means for the job."""
        if attempt.has_checkpoint:
            self._failures.pop(record.job.id, None)
        verdict = judge(end, attempt.asked, self._failures.get(record.job.id, 0), self._limits.max_attempts, self._closing)
        await record.move(verdict.to, outcome=verdict.outcome, failure=verdict.failure)
        if verdict.to is JobStatus.INTERRUPTED and not self._closing:
            count = self._failures[record.job.id] = self._failures.get(record.job.id, 0) + 1
            delay_s = self._limits.retry_after_s[min(count, len(self._limits.retry_after_s)) - 1]
            record.tell("message", f"It is tried again in {delay_s:g} s.", level="warning")
            retry = asyncio.create_task(self._retry(record, delay_s), name=f"retry {record.job.id}")
            self._retries.add(retry)
            retry.add_done_callback(self._retries.discard)

    async def _retry(self, record: JobRecord, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if record.job.status is JobStatus.INTERRUPTED:
            await record.move(JobStatus.QUEUED)
            await self._dispatch()

    def _stored(self, job: Job) -> None:
        """A job that has ended is forgotten once the database knows."""
        if job.status.is_final:
            self._records.pop(job.id, None)
            self._failures.pop(job.id, None)
        self._on_change(job)


def _is_due(job: Job, record: JobRecord) -> bool:
    """Whether the job is still about to start as it was: it may have been cancelled or paused while that was prepared."""
    return record.job.status is JobStatus.RUNNING and record.job.attempt == job.attempt


def _version_made_by(job: Job) -> str:
    if job.outcome is None or job.outcome.version is None:
        raise InvalidJob([Problem(f"The job {job.id} made no version, so that '@{job.id}' means nothing.")])
    return job.outcome.version
