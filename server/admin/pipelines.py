"""`/admin/pipelines`: chains of jobs, declared at once."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from jobs.job import Job, JobNotFound, JobStatus
from jobs.pipelines import Step, start_chain
from jobs.service import JobService
from server.admin.job_access import JobAccess
from server.admin.job_bodies import JobBody, Metadata, NamedKind, Params, job_body
from server.dialects.openai.wire.errors import documented
from server.http.access import CallerPrincipal, requires
from server.http.body_errors import FAIL_FAST
from server.http.disconnection import unless_disconnected
from server.http.json_route import SmallJsonRoute
from server.principal import AccessScope

MAX_STEPS = 100


class StepRequest(BaseModel):
    """params: `@NAME` refers to the version that the step NAME makes. after: steps that must have succeeded before."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    kind: NamedKind
    params: Params = Field(default_factory=dict)
    after: Annotated[list[str], FAIL_FAST] = Field(default_factory=list, max_length=MAX_STEPS)


class PipelineRequest(BaseModel):
    """metadata: of each of its jobs, which have their step's name as `step` too."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    steps: Annotated[list[StepRequest], FAIL_FAST] = Field(min_length=1, max_length=MAX_STEPS)
    metadata: Metadata = Field(default_factory=dict)


class PipelineBody(BaseModel):
    """status: failed or cancelled as soon as one job is, succeeded when all are; else running. jobs: each after its needs."""

    id: str
    object: Literal["pipeline"] = "pipeline"
    status: JobStatus
    jobs: list[JobBody]


def pipelines_router(service: JobService, access: JobAccess) -> APIRouter:
    router = APIRouter(prefix="/admin/pipelines", tags=["jobs"], route_class=SmallJsonRoute)

    def body(id_: str, jobs: list[Job]) -> PipelineBody:
        return PipelineBody(id=id_, status=status_of(jobs), jobs=[job_body(job, str(service.folder(job.id))) for job in jobs])

    @router.post("", status_code=201, responses=documented(400, 404, 422, 429, 500, 503), summary="Create a chain of jobs")
    @requires(AccessScope.JOBS, changes_state=True)
    async def create(submitted: PipelineRequest, request: Request, caller: CallerPrincipal) -> PipelineBody:
        """All of its jobs, or none when one cannot work."""
        names = {step.name for step in submitted.steps}
        for step in submitted.steps:
            await access.check(caller, step.kind, step.params, steps=names)
        steps = [Step(step.name, step.kind, step.params, tuple(step.after)) for step in submitted.steps]
        jobs = await unless_disconnected(request.receive, start_chain(service, steps, submitted.metadata, owner=caller.id))
        return body(jobs[0].pipeline or "", jobs)

    @router.get("/{id}", responses=documented(404, 500), summary="Show a chain of jobs")
    @requires(AccessScope.JOBS, changes_state=False)
    async def show(id: str, caller: CallerPrincipal) -> PipelineBody:
        jobs = await service.find(pipeline=id, owner=caller.only_own, limit=MAX_STEPS)
        if not jobs:
            raise JobNotFound(f"There is no pipeline {id!r} here.")
        return body(id, jobs[::-1])

    return router


def status_of(jobs: list[Job]) -> JobStatus:
    """The status of a chain, from those of its jobs."""
    statuses = {job.status for job in jobs}
    for status in (JobStatus.FAILED, JobStatus.CANCELLED):
        if status in statuses:
            return status
    return JobStatus.SUCCEEDED if statuses == {JobStatus.SUCCEEDED} else JobStatus.RUNNING
