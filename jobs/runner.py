"""Runs the jobs of a table: starts what is to start, and does what follows when a process ends.

Which job starts, and what an end means, is decided by `lifecycle`. Owns the attempts. Runs in one event loop.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from jobs.admission import Starter
from jobs.attempt import Attempt
from jobs.job import Failure, Job, JobStatus, WrongStatus
from jobs.lifecycle import AttemptEnd, judge, plan_dispatch
from jobs.messages import Start
from jobs.permissions import JobLimits
from jobs.record import JobRecord
from jobs.table import JobTable
from jobs.task import JobError, StopReason
from model_registry.errors import NotWritable, OutOfDisk, RegistryError

LOG = "log.txt"  # in a job's folder
_CODES = {OutOfDisk: "out_of_disk", NotWritable: "not_writable"}


class JobRunner:
    """folder: where jobs have their folders."""

    def __init__(self, table: JobTable, starter: Starter, limits: JobLimits, folder: Path) -> None:
        self._table = table
        self._starter = starter
        self._limits = limits
        self._folder = folder
        self._attempts: dict[str, Attempt] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._retries: set[asyncio.Task[None]] = set()
        self._dispatching = asyncio.Lock()
        self._is_closing = False

    async def dispatch(self) -> None:
        """Starts what is to start, and ends what can never start."""
        async with self._dispatching:
            while not self._is_closing:
                jobs = self._table.active()
                needed = await self._table.statuses(need for job in jobs for need in job.needs)
                decision = plan_dispatch(jobs, needed, self._limits.max_running)
                for id_, (status, failure) in decision.unrunnable.items():
                    await self._record(id_).move(status, failure=failure)
                for id_ in decision.start:
                    await self._begin(self._record(id_))
                if not decision.unrunnable:
                    return

    async def stop(self, id_: str, to: JobStatus, reason: StopReason) -> None:
        """Returns once the job's process is gone, and the job's status is what followed. Raises JobNotFound, WrongStatus."""
        job = await self._table.job(id_)
        attempt, record = self._attempts.get(id_), self._table.record(id_)
        if attempt is not None:
            attempt.stop(reason)
            await attempt.is_settled.wait()
        elif record is not None:
            await record.move(to)
        else:
            raise WrongStatus(f"The job {id_} is {job.status}: it has ended.")
        await self.dispatch()

    async def queue_again(self, id_: str) -> None:
        """Lets a job that waits go on. Raises WrongStatus."""
        await self._record(id_).move(JobStatus.QUEUED)
        await self.dispatch()

    async def close(self) -> None:
        """Ends the processes, each with its grace to leave a checkpoint."""
        self._is_closing = True
        for attempt in self._attempts.values():
            attempt.stop(StopReason.PAUSE, self._limits.close_grace_s)
        for retry in self._retries:
            retry.cancel()
        if ending := self._running | self._retries:
            await asyncio.wait(ending)

    # ---- inside ----

    def _record(self, id_: str) -> JobRecord:
        record = self._table.record(id_)
        assert record is not None
        return record

    async def _begin(self, record: JobRecord) -> None:
        await record.move(JobStatus.RUNNING)
        task = asyncio.create_task(self._run(record), name=f"job {record.job.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, record: JobRecord) -> None:
        job = record.job
        try:
            disk_bytes = None if job.plan is None else job.plan.disk_bytes
            folder = self._folder / job.id
            start = await self._starter.start(job.id, job.kind, job.params, folder, attempt=job.attempt, disk_bytes=disk_bytes)
        except (JobError, RegistryError) as error:
            if _is_due(job, record):
                await record.move(JobStatus.FAILED, failure=Failure(_CODES.get(type(error), "invalid_job"), error.message))
        else:
            if _is_due(job, record):
                await self._attempt(record, start)
        await self.dispatch()

    async def _attempt(self, record: JobRecord, start: Start) -> None:
        id_ = record.job.id
        attempt = self._attempts[id_] = Attempt(record, start, self._folder / id_ / LOG, self._starter.kinds.module)
        try:
            await self._settle(record, attempt, await attempt.run())
        finally:
            del self._attempts[id_]
            attempt.is_settled.set()

    async def _settle(self, record: JobRecord, attempt: Attempt, end: AttemptEnd) -> None:
        """Moves the job to where the end of its attempt leads, and retries it later where that may help."""
        if attempt.has_checkpoint:
            record.num_failures = 0
        verdict = judge(end, attempt.stop_reason, record.num_failures, self._limits.max_attempts, self._is_closing)
        await record.move(verdict.to, outcome=verdict.outcome, failure=verdict.failure)
        if verdict.to is JobStatus.INTERRUPTED and not self._is_closing:
            delays_s = self._limits.retry_after_s
            delay_s = delays_s[min(record.num_failures, len(delays_s) - 1)]
            record.num_failures += 1
            record.add_event("message", f"Retrying in {delay_s:g} s.", level="warning")
            retry = asyncio.create_task(self._retry(record, delay_s), name=f"retry {record.job.id}")
            self._retries.add(retry)
            retry.add_done_callback(self._retries.discard)

    async def _retry(self, record: JobRecord, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if record.job.status is JobStatus.INTERRUPTED:
            await self.queue_again(record.job.id)


def _is_due(job: Job, record: JobRecord) -> bool:
    """Whether the job is still about to start as it was: it may have been cancelled or paused while that was prepared."""
    return record.job.status is JobStatus.RUNNING and record.job.attempt == job.attempt
