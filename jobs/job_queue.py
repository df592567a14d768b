"""The job queue: what owners of jobs do with them. Knows nothing of processes; `supervisor` runs what is queued here."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jobs.admission import Admission, files_in, privileged_in
from jobs.job import InvalidJob, Job, JobEvent, JobKind, JobStatus, Plan, Problem, WrongStatus, no_job
from jobs.limits import JobLimits
from jobs.permissions import JobPermissions
from jobs.planning import Planner, PlanSlot
from jobs.references import jobs_in
from jobs.store import JobStore
from jobs.supervisor import LOG, Supervisor, now
from jobs.tasks.protocol import StopReason, Task, problems_of

HEARTBEAT_S = 15.0
LOOK_EVERY_S = 1.0  # at jobs of another process


def _no_files(id_: str) -> str:
    raise InvalidJob([Problem(f"There is no file {id_!r} here.", code="file_not_found")])


class JobQueue:
    """start() before use, close() when done. tasks: the module that knows the kinds. file_of: an uploaded file's path by its id.

    permissions: what the configuration allows jobs. on_change: told of each job after it was created, moved or got further.
    writes: what runs the transactions; None: the event loop's own threads.
    """

    def __init__(
        self,
        store: JobStore,
        limits: JobLimits | None = None,
        *,
        tasks: str = "jobs.tasks.kinds",
        file_of: Callable[[str], str] = _no_files,
        permissions: JobPermissions | None = None,
        on_change: Callable[[Job], None] = lambda job: None,
        writes: Executor | None = None,
    ) -> None:
        self._tasks = tasks
        self._store = store
        self._writes = writes
        limits = limits or JobLimits()
        self._counts: dict[tuple[str, str], int] = {}
        admission = Admission(store.home, permissions or JobPermissions(), file_of)
        self._supervisor = Supervisor(store, limits, tasks=tasks, admission=admission, on_change=on_change, writes=writes)
        self._planner = Planner(self._supervisor.folder(""), partial(self._supervisor.start_of, plan=True), limits, tasks)

    async def start(self) -> None:
        """Takes up what an earlier daemon left; while another process runs the home's jobs, later."""
        await asyncio.to_thread(self._planner.sweep)
        await self._supervisor.start()

    @property
    def is_elsewhere(self) -> bool:
        """Whether another process runs the home's jobs: then they can be read here, and nothing else."""
        return self._supervisor.is_elsewhere

    async def close(self) -> None:
        """Ends the processes, those of plans first; jobs go on when a daemon starts again."""
        await self._planner.close()
        await self._supervisor.close()

    async def check(self, kind: JobKind, params: Mapping[str, Any]) -> None:
        """What the params alone tell, before anything they refer to is looked at. Raises InvalidJob."""
        known = (await self._task(kind)).params
        try:
            known.model_validate(params)
        except ValidationError as error:
            raise InvalidJob(problems_of(error, known)) from None

    async def schema(self, kind: JobKind) -> dict[str, Any]:
        """The JSON Schema of such a job's params."""
        schema: dict[str, Any] = (await self._task(kind)).params.model_json_schema()
        return schema

    async def files_in(self, kind: JobKind, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Ids of the uploaded files that such a job reads."""
        return files_in((await self._task(kind)).params, params)

    async def privileged_in(self, kind: JobKind, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Fields by which such a job reaches beyond uploads and the registry: paths of this machine, sources, endpoints."""
        return privileged_in((await self._task(kind)).params, params)

    async def _task(self, kind: JobKind) -> Task:
        """Its module is imported on first use, which takes a while."""
        task: Task = await asyncio.to_thread(lambda: import_module(self._tasks).task_for(kind))
        return task

    async def count(self) -> dict[tuple[str, str], int]:
        """How many jobs there are now, by kind and status."""
        self._counts = await asyncio.to_thread(self._store.counts)
        return self._counts

    def counts(self) -> dict[tuple[str, str], int]:
        """What `count` found last; none before the first."""
        return self._counts

    def active(self) -> tuple[Job, ...]:
        """Those that have not ended."""
        return self._supervisor.active()

    def plan_slot(self) -> AbstractContextManager[PlanSlot]:
        """For who has several plans made one after another. Raises TooManyPlans at once when there is none, QueueClosing."""
        return self._planner.slot()

    async def plan(self, kind: JobKind, params: Mapping[str, Any], *, slot: PlanSlot | None = None) -> Plan:
        """What such a job would do. Cancelled, it ends the process that looks.

        Raises InvalidJob with everything that is wrong with it, JobFailure when it cannot be told, TooManyPlans, QueueClosing,
        RegistryBusy, OutOfDisk.
        """
        await self.check(kind, params)
        with nullcontext(slot) if slot is not None else self.plan_slot() as mine:
            return await self._planner.plan(kind, params, mine)

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
    ) -> Job:
        """A new job, queued. Planned first, unless it needs versions that are not made yet. Raises as `plan` does, JobNotFound,
        JobsElsewhere. Cancelled while it is planned, it leaves nothing; later, the job is there.
        """
        await self.check(kind, params)
        await self._supervisor.own()
        all_needs = tuple(dict.fromkeys([*needs, *jobs_in(params)]))
        needed = [await self.job(need) for need in all_needs]
        is_ready = all(job.status is JobStatus.SUCCEEDED for job in needed)
        await self._supervisor.admit(kind, params)
        plan = await self.plan(kind, params, slot=slot) if is_ready else None
        id_ = f"job-{secrets.token_hex(6)}"
        notes = dict(metadata or {})
        job = Job(id_, kind, dict(params), JobStatus.QUEUED, now(), all_needs, pipeline, notes, plan=plan, owner=owner)
        await asyncio.shield(self._supervisor.take(job))
        return await self.job(id_)

    async def job(self, id_: str, *, owner: str | None = None) -> Job:
        """owner: only a job of this owner; None: anybody's. Raises JobNotFound."""
        job = await self._supervisor.job(id_)
        if owner not in (None, job.owner):
            raise no_job(id_)
        return job

    async def jobs(
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
        return [record.job if (record := self._supervisor.record(job.id)) else job for job in found]

    async def cancel(self, id_: str) -> Job:
        """Returns once its process is gone, which takes two seconds at most. Raises JobNotFound, WrongStatus."""
        return await self._supervisor.end(id_, JobStatus.CANCELLED, StopReason.CANCEL)

    async def pause(self, id_: str) -> Job:
        """Returns once it has left a checkpoint. Raises JobNotFound, WrongStatus."""
        return await self._supervisor.end(id_, JobStatus.PAUSED, StopReason.PAUSE)

    async def resume(self, id_: str) -> Job:
        """Queues a paused job again. Raises JobNotFound, WrongStatus."""
        return await self._supervisor.resume(id_)

    async def delete(self, id_: str) -> None:
        """The job, its events and its folder; what it registered stays.

        Raises JobNotFound, JobsElsewhere; WrongStatus while it, or a job that needs it, has not ended.
        """
        await self._supervisor.own()
        job = await self.job(id_)
        if not job.status.is_final:
            raise WrongStatus(f"The job {id_} is {job.status}. Cancel it before you delete it.")
        if (record := self._supervisor.record(id_)) is not None:
            raise WrongStatus(f"The job {id_} is {job.status}, and is not stored yet. {record.refusal or 'Try again.'}")
        if (waiting := next((other for other in self.active() if id_ in other.needs), None)) is not None:
            raise WrongStatus(f"The job {waiting.id} needs {id_}, and is {waiting.status}. Cancel that first.")
        await asyncio.get_running_loop().run_in_executor(self._writes, self._store.delete, id_)
        await asyncio.to_thread(shutil.rmtree, self.folder(id_), ignore_errors=True)

    async def events(self, id_: str, after: int = 0, *, follow: bool = False) -> AsyncIterator[JobEvent | None]:
        """Those with a number above `after`. follow: also those to come, until the job has ended; None when all is quiet.

        Raises JobNotFound.
        """
        while True:
            job = await self.job(id_)
            while found := await asyncio.to_thread(self._store.events, id_, after):
                for event in found:
                    after = event.number
                    yield event
            record = self._supervisor.record(id_)
            if not follow or job.status.is_final or self._supervisor.is_closing:
                return
            if record is None:  # another process runs it
                await asyncio.sleep(LOOK_EVERY_S)
            elif record.is_closed:
                return
            elif not await record.wait_beyond(after, HEARTBEAT_S):
                yield None

    def folder(self, id_: str) -> Path:
        """The job's own; its task writes in `work`."""
        return self._supervisor.folder(id_)

    def log(self, id_: str) -> Path:
        """What the job's processes printed; absent before the first."""
        return self.folder(id_) / LOG
