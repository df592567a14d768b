"""The outermost layer but for CORS: ids, counts, the log line, an answer to unexpected exceptions, and refusals while draining.

A pure ASGI layer. Knows nothing of the content of requests.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import replace

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.http.errors import DrainingError, reply_to
from server.http.request_record import ErrorWriter, RequestRecord
from server.inference.lifecycle import Lifecycle
from server.metrics.series import Metrics

ALWAYS_ANSWERED = frozenset({"/health", "/ready", "/version", "/metrics"})
QUIET = frozenset({"/health", "/ready", "/metrics", "/admin/logs"})  # logged at debug: they would crowd out the rest
UNMATCHED = "unmatched"
_SOUND_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_log = logging.getLogger("slmops.access")


class Observation:
    """The layer. X-Request-Id is taken from the client when it is sound, else made up, and always answered.

    error_writer: how the errors of requests to a path are written. route_of: the route of a method and path, None when there is
    none; used for requests that are refused before they reach one.
    """

    def __init__(
        self,
        app: ASGIApp,
        lifecycle: Lifecycle,
        metrics: Metrics,
        error_writer: Callable[[str], ErrorWriter],
        route_of: Callable[[str, str], str | None],
    ) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._error_writer = error_writer
        self._route_of = route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(_request_id(scope), error_writer=self._error_writer(scope["path"]))
        record.attach(scope)
        answer = _Answer(send, record)
        self._lifecycle.request_begins()
        try:
            await self._answered(scope, receive, answer)
        finally:
            self._lifecycle.request_ends()
            self._record_request(scope, record, answer.status)

    async def _answered(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            if not self._lifecycle.is_serving and scope["path"] not in ALWAYS_ANSWERED:
                raise DrainingError
            await self._app(scope, receive, answer.send)
        except Exception as error:
            reply = reply_to(error)
            RequestRecord.of(scope).code = reply.code
            if reply.status == 500:
                _log.error("request failed", exc_info=error, extra={"fields": RequestRecord.of(scope).fields()})
            if answer.status is None:
                reply = replace(reply, headers={**reply.headers, "Connection": "close"})
                await reply.response(scope)(scope, receive, answer.send)

    def _record_request(self, scope: Scope, record: RequestRecord, status: int | None) -> None:
        duration_s = time.perf_counter() - record.arrived
        reached = scope.get("route")
        route = str(reached.path) if reached is not None else self._route_of(scope["method"], scope["path"]) or UNMATCHED
        self._metrics.http_request(scope["method"], route, status or 0, duration_s)
        level = logging.DEBUG if scope["path"] in QUIET else logging.INFO
        if _log.isEnabledFor(level):
            fields = {"method": scope["method"], "route": route, "status": status, "ms": round(duration_s * 1000, 1)}
            _log.log(level, "request", extra={"fields": fields | record.fields()})


class _Answer:
    """The client's `send`, which adds the request's id and warnings, and remembers the status; None until the answer has begun."""

    def __init__(self, send: Send, record: RequestRecord) -> None:
        self._send = send
        self._record = record
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            added = [(b"x-request-id", self._record.request_id.encode())]
            if self._record.warnings:
                added.append((b"x-slmops-warning", " ".join(self._record.warnings).encode("ascii", "backslashreplace")))
            message["headers"] = [*message.get("headers", ()), *added]
        await self._send(message)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SOUND_ID.fullmatch(value):
            return str(value.decode("ascii"))
    return f"req_{secrets.token_hex(12)}"
