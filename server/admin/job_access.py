"""What a caller's jobs may refer to: its own files and jobs, and models. Paths, endpoints and what changes more are for admins."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from jobs.fields import ReferenceKind
from jobs.service import JobService
from jobs.task import InvalidJob, JobKind, Problem
from model_registry.uploads import FileStore
from server.principal import AccessScope, InsufficientScope, Principal

ADMIN_KINDS = frozenset({JobKind.CONVERT, JobKind.REGISTER})  # pulls or takes a path; moves aliases


class JobAccess:
    """Checks before a job is planned or created. An admin may refer to everything."""

    def __init__(self, service: JobService, uploads: FileStore) -> None:
        self._service = service
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
        """steps: names in the params that refer to jobs of the same chain.

        Raises InsufficientScope; for a file or job of another owner FileNotKnown or JobNotFound, as if it did not exist;
        InvalidJob for a pull, which has routes of its own with checks of its own.
        """
        if kind is JobKind.PULL:
            message = "A model is pulled by `POST /admin/registry/pulls`, or `slmops pull`. Use one of them."
            raise InvalidJob([Problem(message, param="kind", code="unsupported_value")])
        owner = principal.only_own
        if owner is None:
            return
        if kind in ADMIN_KINDS:
            raise InsufficientScope(principal, [AccessScope.ADMIN], "kind")
        references = await self._service.kinds.references(kind, params)
        for each in references:
            if each.is_privileged:
                raise InsufficientScope(principal, [AccessScope.ADMIN], each.param)
        for each in references:
            if each.kind is ReferenceKind.UPLOAD:
                await asyncio.to_thread(self._uploads.get, each.name, owner)
        for job in {*needs, *(each.name for each in references if each.kind is ReferenceKind.JOB)} - {*steps}:
            await self._service.job(job, owner=owner)
