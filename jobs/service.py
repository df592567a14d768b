"""Jobs as their owners see them: created, planned, followed, ended. The one service of jobs; the composition root builds one.

Its parts: `table` has the jobs as they are, `runner` their processes, `planning` the processes of plans, `ownership` the right to
run a home's jobs, `kinds` what each kind accepts. One process at a time owns a home's jobs: another reads them, and waits to take
over.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from jobs.admission import Admission, Starter
from jobs.fields import jobs_in
from jobs.job import Job, JobEvent, JobStatus, WrongStatus
from jobs.kinds import Kinds
from jobs.ownership import Ownership
from jobs.permissions import JobLimits, JobPermissions
from jobs.planning import MadePlan, Planner, PlanSlot
from jobs.runner import LOG, JobRunner
from jobs.store import JobStore
from jobs.table import JobTable, now
from jobs.task import InvalidJob, JobKind, Plan, Problem, StopReason


def _no_files(id_: str) -> str:
    raise InvalidJob([Problem(f"There is no file {id_!r} here.", code="file_not_found")])


class JobService:
    """start() before use, close() when done. tasks: the module that knows the kinds (`TaskModule`).

    file_of: an uploaded file's path by its id. permissions: what the configuration allows jobs. on_change: called with each job
    after it was created, moved or got further. writes: what runs the transactions; None: the event loop's own threads.
    room: called in a thread with what a new job and those in line before it are going to write; raises OutOfDisk.
    kinds: what each kind accepts.
    """

    def __init__(
        self,
        store: JobStore,
        limits: JobLimits | None = None,
        *,
        tasks: str,
        file_of: Callable[[str], str] = _no_files,
        permissions: JobPermissions | None = None,
        on_change: Callable[[Job], None] = lambda job: None,
        writes: Executor | None = None,
        room: Callable[[int], None] = lambda num_bytes: None,
    ) -> None:
        limits = limits or JobLimits()
        home = store.home
        self._store = store
        self._folder = home / "jobs"
        self._on_change = on_change
        self._room = room
        self.kinds = Kinds(tasks)
        self._table = JobTable(store, on_change, writes)
        self._starter = Starter(
            home, limits, self.kinds, Admission(home, permissions or JobPermissions(), file_of), self._table.job
        )
        self._runner = JobRunner(self._table, self._starter, limits, self._folder)
        self._planner = Planner(self._folder, partial(self._starter.start, plan=True), limits, tasks)
        self._ownership = Ownership(home, self._take_up)

    async def start(self) -> None:
        """Resumes the jobs that an earlier daemon left, if there are any; later if another process owns them, or nothing can be
        written.
        """
        await asyncio.to_thread(self._planner.sweep)
        if await asyncio.to_thread(self._store.exists):
            await self._ownership.acquire_or_wait()

    async def close(self) -> None:
        """Ends the processes, those of plans first; jobs go on when a daemon starts again."""
        await self._planner.close()
        self._table.is_closing = True
        self._ownership.stop_waiting()
        await self._runner.close()
        await self._table.close()
        await self._ownership.release()

    @property
    def is_elsewhere(self) -> bool:
        """Whether another process runs the home's jobs: then they can be read here, and nothing else."""
        return self._ownership.is_elsewhere

    # ---- plan, create ----

    def plan_slot(self) -> AbstractContextManager[PlanSlot]:
        """For callers that make several plans in sequence. Raises TooManyPlans at once when no place is free, QueueClosing."""
        return self._planner.slot()

    async def plan(self, kind: JobKind, params: Mapping[str, Any]) -> Plan:
        """What such a job would do. Cancelled, it ends the process that looks.

        Raises InvalidJob with everything that is wrong with it, JobFailure when no plan can be made, TooManyPlans, QueueClosing,
        RegistryBusy, OutOfDisk.
        """
        await self.kinds.check(kind, params)
        with self.plan_slot() as slot:
            async with self._planner.plan(kind, params, slot) as made:
                return made.plan

    async def create(
        self,
        kind: JobKind,
        params: Mapping[str, Any],
        *,
        needs: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        pipeline: str | None = None,
        slot: PlanSlot | None = None,
        owner: str | None = None,
        is_planned: bool = True,
    ) -> Job:
        """A new job, queued. Planned first, unless it needs versions that are not made yet, or its caller has checked it
        (is_planned false); what its plan leaves becomes the job's.

        Raises as `plan` does, JobNotFound, JobsElsewhere. Cancelled while it is planned, it leaves nothing; later, the job is.
        """
        await self.kinds.check(kind, params)
        await self._ownership.acquire()
        all_needs = tuple(dict.fromkeys([*needs, *jobs_in(params)]))
        needed = [await self.job(need) for need in all_needs]
        await self._starter.admit(kind, params)
        async with AsyncExitStack() as planning:
            made: MadePlan | None = None
            if is_planned and all(job.status is JobStatus.SUCCEEDED for job in needed):
                slot = slot or planning.enter_context(self.plan_slot())
                made = await planning.enter_async_context(self._planner.plan(kind, params, slot))
            if made is not None and made.plan.disk_bytes:
                await asyncio.to_thread(self._room, made.plan.disk_bytes + self._queued_bytes())
            id_, notes, plan = f"job-{secrets.token_hex(6)}", dict(metadata or {}), made.plan if made else None
            job = Job(id_, kind, dict(params), JobStatus.QUEUED, now(), all_needs, pipeline, notes, plan=plan, owner=owner)
            await asyncio.shield(self._take(job, made))
        return await self.job(id_)

    # ---- find ----

    async def job(self, id_: str, *, owner: str | None = None) -> Job:
        """owner: only a job of this owner; None: of any owner. Raises JobNotFound."""
        return await self._table.job(id_, owner=owner)

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
        return await self._table.find(kind=kind, status=status, pipeline=pipeline, owner=owner, limit=limit, after=after)

    def active(self) -> tuple[Job, ...]:
        """The jobs that have not ended."""
        return self._table.active()

    async def count(self) -> dict[tuple[str, str], int]:
        """How many jobs there are now, by kind and status."""
        return await self._table.count()

    def counts(self) -> dict[tuple[str, str], int]:
        """What `count` found last; none before the first."""
        return self._table.counts()

    def events(self, id_: str, after: int = 0, *, follow: bool = False) -> AsyncIterator[JobEvent | None]:
        """The events with a number above `after`.

        follow: future events, too, until the job has ended; yields None while there are none.

        Raises JobNotFound.
        """
        return self._table.events(id_, after, follow=follow)

    def folder(self, id_: str) -> Path:
        """The job's own; its task writes in `WORK` there."""
        return self._folder / id_

    def log(self, id_: str) -> Path:
        """What the job's processes printed; absent before the first."""
        return self.folder(id_) / LOG

    # ---- end, resume, delete ----

    async def cancel(self, id_: str) -> Job:
        """Returns once its process is gone, which takes two seconds at most. Raises JobNotFound, WrongStatus, JobsElsewhere."""
        return await self._stop(id_, JobStatus.CANCELLED, StopReason.CANCEL)

    async def pause(self, id_: str) -> Job:
        """Returns once it has left a checkpoint. Raises JobNotFound, WrongStatus, JobsElsewhere."""
        return await self._stop(id_, JobStatus.PAUSED, StopReason.PAUSE)

    async def resume(self, id_: str) -> Job:
        """Queues a paused job again. Raises JobNotFound, WrongStatus, JobsElsewhere."""
        await self._ownership.acquire()
        job = await self.job(id_)
        if job.status is not JobStatus.PAUSED:
            raise WrongStatus(f"The job {id_} is {job.status}; only a paused job can be resumed.")
        await self._runner.queue_again(id_)
        return await self.job(id_)

    async def delete(self, id_: str) -> None:
        """The job, its events and its folder; what it registered stays.

        Raises JobNotFound, JobsElsewhere; WrongStatus while it, or a job that needs it, has not ended.
        """
        await self._ownership.acquire()
        job = await self.job(id_)
        if not job.status.is_final:
            raise WrongStatus(f"The job {id_} is {job.status}. Cancel it before you delete it.")
        if (record := self._table.record(id_)) is not None:
            raise WrongStatus(f"The job {id_} is {job.status}, and is not stored yet. {record.refusal or 'Try again.'}")
        if (waiting := next((other for other in self.active() if id_ in other.needs), None)) is not None:
            raise WrongStatus(f"The job {waiting.id} needs {id_}, and is {waiting.status}. Cancel that first.")
        await self._table.delete(id_)
        await asyncio.to_thread(shutil.rmtree, self.folder(id_), ignore_errors=True)

    # ---- inside ----

    def _queued_bytes(self) -> int:
        """What jobs in line are going to write; those that run have reserved it themselves."""
        waiting = (job.plan for job in self.active() if job.status is not JobStatus.RUNNING)
        return sum(plan.disk_bytes or 0 for plan in waiting if plan is not None)

    async def _stop(self, id_: str, to: JobStatus, reason: StopReason) -> Job:
        await self._ownership.acquire()
        await self._runner.stop(id_, to, reason)
        return await self.job(id_)

    async def _take(self, job: Job, made: MadePlan | None) -> None:
        await self._ownership.acquire()
        await self._table.add(job)
        if made is not None:
            await asyncio.to_thread(made.hand_over, self.folder(job.id))
        await self._runner.dispatch()

    async def _take_up(self) -> None:
        """Jobs that ran when an earlier daemon ended are queued again, and go on from their checkpoints."""
        for record in await self._table.load():
            if record.job.status is JobStatus.RUNNING:
                await record.move(JobStatus.INTERRUPTED)
            if record.job.status is JobStatus.INTERRUPTED:
                await record.move(JobStatus.QUEUED)
            self._on_change(record.job)
        await self._runner.dispatch()
