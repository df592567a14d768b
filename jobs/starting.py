"""What a job's process is started with: its params admitted, its folder made, its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from jobs.admission import Admission, Admitted
from jobs.job import WORK, JobKind
from jobs.limits import JobLimits
from jobs.messages import Start
from model_registry.disk import make_private_folder


@dataclass(frozen=True, slots=True)
class Starter:
    """tasks: the module that knows the kinds."""

    home: Path
    limits: JobLimits
    tasks: str
    admission: Admission

    async def admit(self, kind: JobKind, params: Mapping[str, Any]) -> Admitted:
        """The params with real paths, and what the job is granted. Raises InvalidJob with what the configuration does not allow."""
        return await asyncio.to_thread(lambda: self.admission.admit(import_module(self.tasks).task_for(kind).params, params))

    async def start(
        self, id_: str, kind: JobKind, params: Mapping[str, Any], folder: Path, *, attempt: int = 1, plan: bool = False
    ) -> Start:
        """params: with versions in place of the jobs that make them. Raises InvalidJob, OutOfDisk, NotWritable."""
        admitted = await self.admit(kind, params)
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
