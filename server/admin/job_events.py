"""A job's events as routes answer them: a list, or server-sent events until the job has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

from jobs.job import JobEvent
from server.admin.job_bodies import EventList, event_body
from server.http.event_stream import EVENT_STREAM_HEADERS

MAX_EVENTS = 10_000  # of one list
EVENT_STREAM = "text/event-stream"


async def event_list(events: AsyncIterator[JobEvent | None]) -> EventList:
    """events: as of `JobService.events`, of which at most MAX_EVENTS are taken."""
    found: list[JobEvent] = []
    async for event in events:
        found += [event] if event else []
        if len(found) == MAX_EVENTS:
            break
    return EventList(data=[event_body(event) for event in found])


def event_stream(events: AsyncIterator[JobEvent | None]) -> StreamingResponse:
    """events: as of `JobService.events`, followed."""
    return StreamingResponse(_frames(events), media_type=EVENT_STREAM, headers=EVENT_STREAM_HEADERS)


async def _frames(events: AsyncIterator[JobEvent | None]) -> AsyncIterator[bytes]:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html; a comment when all is quiet."""
    async for event in events:
        if event is None:
            yield b": still here\n\n"
        else:
            data = event_body(event).model_dump_json()
            yield f"id: {event.number}\nevent: {event.type}\ndata: {data}\n\n".encode()
