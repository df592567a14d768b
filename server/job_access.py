"""What a caller's jobs may refer to: its own files and jobs, and models. Paths, endpoints and what changes more are for admins."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from jobs.job import JobKind
from jobs.job_queue import JobQueue
from jobs.references import jobs_in
from model_registry.uploads import FileStore
from server.principal import AccessScope, InsufficientScope, Principal

ADMIN_KINDS = frozenset({JobKind.CONVERT, JobKind.REGISTER})  # pulls or takes a path; moves aliases


class JobAccess:
    """Checks before a job is planned or created. An admin may refer to everything."""

    def __init__(self, queue: JobQueue, uploads: FileStore) -> None:
        self._queue = queue
        self._uploads = uploads

    async def check(
        self,
        principal: Principal,
        kind: JobKind,
        params: Mapping[str, Any],
        needs: Collection[str] = (),
        *,
        steps: Collection[str] = (),
    ) -> None:
        """steps: names in the params that stand for jobs of the same chain.

        Raises InsufficientScope, and what says that there is none for another's file or job: FileNotKnown, JobNotFound.
        """
        owner = principal.only_own
        if owner is None:
            return
        if kind in ADMIN_KINDS:
            raise InsufficientScope(principal, [AccessScope.ADMIN], "kind")
        for param in await self._queue.privileged_in(kind, params):
            raise InsufficientScope(principal, [AccessScope.ADMIN], param)
        for file in await self._queue.files_in(kind, params):
            await asyncio.to_thread(self._uploads.get, file, owner)
        for job in {*needs, *jobs_in(params)} - {*steps}:
            await self._queue.job(job, owner=owner)
