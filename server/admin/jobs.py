"""`/admin/jobs`: work beside serving: created, followed, paused and ended; and the end of a job's log."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import PlainTextResponse, Response

from jobs.job import Job, JobStatus
from jobs.service import JobService
from jobs.task import JobKind
from server.admin.job_access import JobAccess
from server.admin.job_bodies import (
    Deleted,
    EventList,
    JobBody,
    JobList,
    JobRequest,
    KindBody,
    KindList,
    NamedKind,
    PlanBody,
    PlanRequest,
    job_body,
    plan_body,
)
from server.admin.job_events import EVENT_STREAM, event_list, event_stream
from server.dialects.openai.wire.errors import documented
from server.http.access import CallerPrincipal, requires
from server.http.disconnection import unless_disconnected
from server.http.event_stream import STREAMS
from server.http.json_route import SmallJsonRoute
from server.principal import AccessScope

MAX_LINES = 1_000_000
MAX_BYTES = 16 << 20


def end_of(log: Path, num_lines: int = MAX_LINES, max_bytes: int = MAX_BYTES) -> str:
    """The end of the log; a first line notes that the beginning was left out for its size. Empty when there is no log."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin = file.seek(max(0, size - max_bytes))
            content = file.read(max_bytes)
    except FileNotFoundError:
        return ""
    note = b"" if begin == 0 else f"... the first {begin} bytes of this log are left out\n".encode()
    if begin:
        content = content.partition(b"\n")[2] or content
    lines = content.splitlines(keepends=True)
    if len(lines) >= num_lines:
        lines, note = lines[-num_lines:], b""
    return (note + b"".join(lines)).decode("utf-8", errors="replace")


_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


def jobs_router(service: JobService, access: JobAccess) -> APIRouter:
    router = APIRouter(prefix="/admin", tags=["jobs"], route_class=SmallJsonRoute)

    def body(job: Job) -> JobBody:
        return job_body(job, str(service.folder(job.id)))

    @router.post("/jobs", status_code=201, responses=documented(400, 404, 422, 429, 500, 503), summary="Create a job")
    @requires(AccessScope.JOBS, changes_state=True)
    async def create(submitted: JobRequest, request: Request, caller: CallerPrincipal) -> JobBody:
        """It is planned before it is queued: what cannot work is refused, bad data with its file and line."""
        await access.check(caller, submitted.kind, submitted.params, submitted.needs)
        creating = service.create(
            submitted.kind, submitted.params, needs=submitted.needs, metadata=submitted.metadata, owner=caller.id
        )
        return body(await unless_disconnected(request.receive, creating))

    @router.post("/job-plans", responses=documented(400, 404, 422, 429, 500, 503), summary="Plan a job without creating it")
    @requires(AccessScope.JOBS, changes_state=True)
    async def plan(submitted: PlanRequest, request: Request, caller: CallerPrincipal) -> PlanBody:
        """A dry run: what would be done, how long it would take and how much memory. Nothing is queued.

        Two at a time; a plan ends with its request.
        """
        await access.check(caller, submitted.kind, submitted.params)
        return plan_body(await unless_disconnected(request.receive, service.plan(submitted.kind, submitted.params)))

    @router.get("/jobs", responses=documented(400, 404, 500), summary="List jobs")
    @requires(AccessScope.JOBS, changes_state=False)
    async def list_jobs(
        caller: CallerPrincipal,
        kind: NamedKind | None = None,
        status: JobStatus | None = None,
        pipeline: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str | None, Query(description="The id of the last job of the page before.")] = None,
    ) -> JobList:
        """The jobs that the key created; an admin sees all."""
        owner = caller.only_own
        found = await service.find(kind=kind, status=status, pipeline=pipeline, owner=owner, limit=limit + 1, after=after)
        return JobList(data=[body(job) for job in found[:limit]], has_more=len(found) > limit)

    @router.get("/job-kinds", responses=documented(500), summary="List the kinds of jobs and their params")
    @requires(AccessScope.JOBS, AccessScope.READ, changes_state=False)
    async def kinds() -> KindList:
        return KindList(data=[KindBody(kind=kind, params=await service.kinds.schema(kind)) for kind in JobKind])

    @router.get("/jobs/{id}", responses=documented(404, 500), summary="Show a job")
    @requires(AccessScope.JOBS, changes_state=False)
    async def show(id: str, caller: CallerPrincipal) -> JobBody:
        return body(await service.job(id, owner=caller.only_own))

    @router.get(
        "/jobs/{id}/events", response_model=EventList, responses=documented(400, 404, 500) | STREAMS, summary="List its events"
    )
    @requires(AccessScope.JOBS, changes_state=False)
    async def events(
        id: str,
        caller: CallerPrincipal,
        after: Annotated[int, Query(ge=0, le=2**62, description="Only events with a higher number.")] = 0,
        stream: Annotated[bool, Query(description="As server-sent events, until the job has ended.")] = False,
        accept: Annotated[str | None, Header()] = None,
        last_event_id: Annotated[int | None, Header(ge=0, le=2**62)] = None,
    ) -> Any:
        """A list, at most 10,000 at a time; or, with `stream=true` or `Accept: text/event-stream`, as they happen."""
        after = max(after, last_event_id or 0)
        await service.job(id, owner=caller.only_own)
        if stream or EVENT_STREAM in (accept or ""):
            return event_stream(service.events(id, after, follow=True))
        return await event_list(service.events(id, after))

    @router.get("/jobs/{id}/log", response_class=Response, responses=documented(400, 404, 500) | _TEXT, summary="Read its log")
    @requires(AccessScope.JOBS, changes_state=False)
    async def log(
        id: str,
        caller: CallerPrincipal,
        tail: Annotated[int | None, Query(ge=1, le=MAX_LINES, description="Only so many last lines.")] = None,
    ) -> Response:
        """What its processes printed, at most the last 16 MiB of it; empty before the first."""
        await service.job(id, owner=caller.only_own)
        return PlainTextResponse(await asyncio.to_thread(end_of, service.log(id), tail or MAX_LINES))

    @router.post("/jobs/{id}/cancel", responses=documented(404, 409, 500), summary="End a job")
    @requires(AccessScope.JOBS, changes_state=True)
    async def cancel(id: str, caller: CallerPrincipal) -> JobBody:
        """Answers once its process is gone, which takes two seconds at most."""
        await service.job(id, owner=caller.only_own)
        return body(await service.cancel(id))

    @router.post("/jobs/{id}/pause", responses=documented(404, 409, 500), summary="Pause a job")
    @requires(AccessScope.JOBS, changes_state=True)
    async def pause(id: str, caller: CallerPrincipal) -> JobBody:
        """Answers once it has left a checkpoint."""
        await service.job(id, owner=caller.only_own)
        return body(await service.pause(id))

    @router.post("/jobs/{id}/resume", responses=documented(404, 409, 500), summary="Let a paused job go on")
    @requires(AccessScope.JOBS, changes_state=True)
    async def resume(id: str, caller: CallerPrincipal) -> JobBody:
        await service.job(id, owner=caller.only_own)
        return body(await service.resume(id))

    @router.delete("/jobs/{id}", responses=documented(404, 409, 500), summary="Delete a job")
    @requires(AccessScope.JOBS, changes_state=True)
    async def delete(id: str, caller: CallerPrincipal) -> Deleted:
        """The job, its events and its files; what it registered stays."""
        await service.job(id, owner=caller.only_own)
        await service.delete(id)
        return Deleted(id=id)

    return router
