"""A response of server-sent events, cheap per token: one send per event, straight from the engine's events.

Knows ASGI and inferences; dialects give a Renderer, which is pure.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from runtime.protocol.errors import RuntimeFailure
from server.http.disconnection import wait_for_disconnect
from server.http.errors import reply_to
from server.http.request_record import RequestRecord
from server.inference.inference import Indexed, Inference

_log = logging.getLogger("slmops.stream")
_EVENT = {
    "type": "object",
    "description": "One server-sent event.",
    "properties": {"data": {"type": "string", "description": "A chunk, or an error, as JSON; `[DONE]` at the end."}},
    "required": ["data"],
}
STREAMS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": _EVENT}}}}  # for OpenAPI
EVENT_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second keeps nginx from collecting them


class Renderer(Protocol):
    """Events to bytes. `event` may give no bytes: then nothing is sent."""

    def event(self, indexed: Indexed) -> bytes: ...
    def closing(self) -> bytes: ...


class EventStream(Response):
    """Sends an inference that has begun, and closes it however this ends: done, failed, or the client gone."""

    media_type = "text/event-stream"

    def __init__(self, inference: Inference, renderer: Renderer) -> None:
        super().__init__(headers=EVENT_STREAM_HEADERS)
        del self.headers["content-length"]
        self._inference = inference
        self._renderer = renderer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = asyncio.create_task(self._close_on_disconnect(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                last = await self._send_events(send)
            except Exception as error:
                last = _error_event(error, RequestRecord.of(scope))
            await send({"type": "http.response.body", "body": last, "more_body": False})
        finally:
            watcher.cancel()
            self._inference.close()

    async def _send_events(self, send: Send) -> bytes:
        """Everything but the end of the stream, which is returned."""
        render = self._renderer.event
        async for indexed in self._inference:
            frame = render(indexed)
            if frame:
                await send({"type": "http.response.body", "body": frame, "more_body": True})
        return self._renderer.closing()

    async def _close_on_disconnect(self, receive: Receive) -> None:
        await wait_for_disconnect(receive)
        self._inference.close()


def _error_event(error: Exception, record: RequestRecord) -> bytes:
    reply = reply_to(error)
    record.code = reply.code
    if not isinstance(error, RuntimeFailure):
        _log.error("stream failed", exc_info=error, extra={"fields": record.fields()})
    assert record.error_writer is not None
    return record.error_writer.event(reply)
