"""What is remembered of one HTTP request: ids, counts and times for its line in the log, never content; who writes its errors."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from starlette.types import Scope

from server.principal import ANONYMOUS, LOCAL, Principal

if TYPE_CHECKING:
    from server.http.errors import ErrorReply


class ErrorWriter(Protocol):
    """A dialect's envelope, and its words for the parts of a request."""

    def body(self, reply: ErrorReply) -> bytes:
        """Of a response with media type application/json."""

    def event(self, reply: ErrorReply) -> bytes:
        """The last event of a stream of server-sent events."""


_KEY = "slmops.record"


@dataclass(slots=True)
class RequestRecord:
    """Filled in as the request passes. arrived: on the clock of time.perf_counter. code: of the error that ended it.

    resolution: why the name that was requested means this model. principal: the caller, once it is authenticated. foreign_page:
    the origin of the web page that makes the request, if that is neither the daemon's own nor one that the operator named.
    warnings: sentences for the client, in a header; ASCII. error_writer: of the path, or of the route, which knows more.
    """

    request_id: str
    arrived: float = field(default_factory=time.perf_counter)
    model: str | None = None
    resolution: str | None = None
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_completion_tokens: int = 0
    first_token_s: float | None = None
    finish_reason: str | None = None
    code: str | None = None
    principal: Principal = LOCAL
    foreign_page: str | None = None
    warnings: list[str] = field(default_factory=list)
    error_writer: ErrorWriter | None = None

    def attach(self, scope: Scope) -> None:
        scope[_KEY] = self

    @staticmethod
    def of(scope: Scope) -> RequestRecord:
        """The record of the request with this ASGI scope."""
        record: RequestRecord = scope[_KEY]
        return record

    def fields(self) -> dict[str, Any]:
        """The fields of the log line, without those that do not apply."""
        fields: dict[str, Any] = {"request_id": self.request_id}
        if self.principal not in (LOCAL, ANONYMOUS):
            fields["key"] = self.principal.id
        if self.model is not None:
            fields |= {
                "model": self.model,
                "resolution": self.resolution,
                "prompt_tokens": self.num_prompt_tokens,
                "cached_tokens": self.num_cached_tokens,
                "completion_tokens": self.num_completion_tokens,
                "finish_reason": self.finish_reason,
            }
        if self.first_token_s is not None:
            fields["first_token_ms"] = round(self.first_token_s * 1000, 1)
        if self.warnings:
            fields["warnings"] = self.warnings
        if self.code is not None:
            fields["code"] = self.code
        return fields
