"""How the errors of a request are written: each dialect has a writer, and a request's record carries that of its path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from server.errors import ErrorReply


class ErrorWriter(Protocol):
    """A dialect's envelope, and its words for the parts of a request."""

    def body(self, reply: ErrorReply) -> bytes:
        """Of a response with media type application/json."""

    def event(self, reply: ErrorReply) -> bytes:
        """The last event of a stream of server-sent events."""
