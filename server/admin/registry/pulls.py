"""`/admin/registry/pulls`: models on their way onto this machine: created, followed, paused, ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from jobs.job import Job, JobEvent, JobStatus, no_job
from jobs.service import JobService
from jobs.task import JobKind
from server.admin.job_bodies import Deleted, EventList
from server.admin.job_events import EVENT_STREAM, event_list, event_stream
from server.admin.registry.pull_bodies import PullBody, PullList, PullRequest, pull_body
from server.admin.registry.pull_orders import PullOrders
from server.dialects.openai.wire.errors import documented
from server.http.access import CallerPrincipal, requires
from server.http.event_stream import STREAMS
from server.http.json_route import SmallJsonRoute
from server.principal import AccessScope
from server.storage.snapshots import RegistryAccess

Number = Annotated[int, Query(ge=0, le=2**62, description="Only events with a higher number.")]


def pulls_router(service: JobService, orders: PullOrders, registry: RegistryAccess) -> APIRouter:
    router = APIRouter(prefix="/admin/registry/pulls", tags=["registry"], route_class=SmallJsonRoute)

    async def found(id_: str) -> Job:
        """Once it has succeeded, the snapshot has its version."""
        job = await service.job(id_)
        if job.kind is not JobKind.PULL:
            raise no_job(id_)
        if job.status is JobStatus.SUCCEEDED:
            await registry.refresh()
        return job

    @router.post("", status_code=201, responses=_CREATED | documented(400, 404, 409, 500, 503, 507), summary="Pull a model")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def create(submitted: PullRequest, caller: CallerPrincipal, response: Response) -> PullBody:
        """Fetches it, converts it if needed, loads it once, and registers it. Two run at a time, beside other jobs.

        When the same is being pulled already, that pull is answered, with status 200. Create a pull again that was cancelled or
        failed: it goes on from what was downloaded.
        """
        ordered = await orders.order(submitted, caller.id)
        response.status_code = 201 if ordered.is_new else 200
        return pull_body(ordered.job)

    @router.get("", responses=documented(400, 404, 500, 503), summary="List pulls")
    @requires(AccessScope.READ, changes_state=False)
    async def list_pulls(
        status: JobStatus | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str | None, Query(description="The id of the last pull of the page before.")] = None,
    ) -> PullList:
        """Those of all callers, also ended ones until they are deleted."""
        jobs = await service.find(kind=JobKind.PULL, status=status, limit=limit + 1, after=after)
        return PullList(data=[pull_body(job) for job in jobs[:limit]], has_more=len(jobs) > limit)

    @router.get("/{id}", responses=documented(404, 500, 503), summary="Show a pull")
    @requires(AccessScope.READ, changes_state=False)
    async def show(id: str) -> PullBody:
        return pull_body(await found(id))

    @router.get(
        "/{id}/events", response_model=EventList, responses=documented(400, 404, 500, 503) | STREAMS, summary="List its events"
    )
    @requires(AccessScope.READ, changes_state=False)
    async def events(
        id: str,
        after: Number = 0,
        stream: Annotated[bool, Query(description="As server-sent events, until the pull has ended.")] = False,
        accept: Annotated[str | None, Header()] = None,
        last_event_id: Annotated[int | None, Header(ge=0, le=2**62)] = None,
    ) -> Any:
        """A list, at most 10,000 at a time; or, with `stream=true` or `Accept: text/event-stream`, as they happen."""
        after = max(after, last_event_id or 0)
        await found(id)
        if stream or EVENT_STREAM in (accept or ""):
            return event_stream(_seen(service.events(id, after, follow=True), registry))
        return await event_list(service.events(id, after))

    @router.post("/{id}/cancel", responses=documented(404, 409, 500, 503), summary="End a pull")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def cancel(id: str) -> PullBody:
        """Answers within two seconds, whatever its source does. What was downloaded is kept."""
        await found(id)
        return pull_body(await service.cancel(id))

    @router.post("/{id}/pause", responses=documented(404, 409, 500, 503), summary="Pause a pull")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def pause(id: str) -> PullBody:
        await found(id)
        return pull_body(await service.pause(id))

    @router.post("/{id}/resume", responses=documented(404, 409, 500, 503), summary="Let a paused pull go on")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def resume(id: str) -> PullBody:
        await found(id)
        return pull_body(await service.resume(id))

    @router.delete("/{id}", responses=documented(404, 409, 500, 503), summary="Delete a pull that has ended")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def delete(id: str) -> Deleted:
        """The pull and its events; the version that it registered stays."""
        await found(id)
        await service.delete(id)
        return Deleted(id=id)

    return router


_CREATED: dict[int | str, dict[str, Any]] = {200: {"model": PullBody, "description": "The same is being pulled already."}}


async def _seen(events: AsyncIterator[JobEvent | None], registry: RegistryAccess) -> AsyncIterator[JobEvent | None]:
    """The events; whoever reads of the success finds the version."""
    async for event in events:
        if event is not None and event.data.get("status") == JobStatus.SUCCEEDED:
            await registry.refresh()
        yield event
