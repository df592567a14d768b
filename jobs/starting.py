"""What a job's process is started with: its params resolved and admitted, its folder made, its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.admission import Admission, Admitted
from jobs.fields import jobs_in, with_jobs
from jobs.job import WORK, Job
from jobs.kinds import Kinds
from jobs.messages import Start
from jobs.permissions import JobLimits
from jobs.task import InvalidJob, JobKind, Problem
from model_registry.disk import make_private_folder


@dataclass(frozen=True, slots=True)
class Starter:
    """job: finds a job by its id, as `JobTable.job`."""

    home: Path
    limits: JobLimits
    kinds: Kinds
    admission: Admission
    job: Callable[[str], Awaitable[Job]]

    async def admit(self, kind: JobKind, params: Mapping[str, Any]) -> Admitted:
        """The params with real paths, and what the job is granted. Raises InvalidJob with what the configuration does not allow."""
        references = await self.kinds.references(kind, params)
        return await asyncio.to_thread(self.admission.admit, params, references)

    async def start(
        self, id_: str, kind: JobKind, params: Mapping[str, Any], folder: Path, *, attempt: int = 1, plan: bool = False
    ) -> Start:
        """params: as they were requested; versions take the place of the jobs that make them.

        Raises InvalidJob, JobNotFound, OutOfDisk, NotWritable.
        """
        made = {need: _version_made_by(await self.job(need)) for need in jobs_in(params)}
        admitted = await self.admit(kind, with_jobs(params, made))
        work = await asyncio.to_thread(make_private_folder, folder / WORK)
        limits = self.limits
        return Start(
            job=id_,
            kind=str(kind),
            params=admitted.params,
            home=str(self.home),
            folder=str(work),
            plan=plan,
            attempt=attempt,
            threads=limits.threads,
            memory_bytes=limits.memory_bytes,
            offline=limits.offline,
            plan_memory_bytes=limits.bytes_of_a_plan if plan else None,
            grants=admitted.grants,
        )


def _version_made_by(job: Job) -> str:
    if job.outcome is None or job.outcome.version is None:
        raise InvalidJob([Problem(f"The job {job.id} made no version, so that '@{job.id}' means nothing.")])
    return job.outcome.version
