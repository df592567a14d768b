"""What every response of one request repeats (id, time, model, fingerprint), and how chunks become bytes cheaply.

A chunk is rendered once with a mark for the text; per token only the text is escaped.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

import msgspec
from pydantic import BaseModel

from server.inference.resolution import Resolution
from server.version import slmops_version


@dataclass(frozen=True, slots=True)
class Identity:
    """model: as the client named it. system_fingerprint: what made the answer, so that a change can be noticed.

    service_tier: the tier that is returned to requests with a service_tier.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str
    service_tier: str | None = None

    @classmethod
    def new(cls, prefix: str, resolution: Resolution, service_tier: str | None = None) -> Identity:
        """prefix: `chatcmpl` or `cmpl`. service_tier: the requested one, if any; there is only one."""
        fingerprint = f"slmops-{slmops_version()}/{resolution.label}"
        return cls(f"{prefix}-{secrets.token_hex(12)}", int(time.time()), resolution.name, fingerprint, service_tier and "default")


MARK = "\ue000text\ue000"  # private-use characters: rendered as they are, and last in the chunk if anywhere twice
DONE = b"data: [DONE]\n\n"
_escape = msgspec.json.Encoder().encode


def event_of(chunk: BaseModel, *, with_usage: bool) -> bytes:
    """A whole event. with_usage: keep `usage`, also when it is null."""
    exclude = None if with_usage else {"usage"}
    return b"data: " + chunk.model_dump_json(exclude=exclude).encode() + b"\n\n"


class ChunkTemplate:
    """A chunk whose text is MARK, ready to be filled."""

    def __init__(self, chunk: BaseModel, *, with_usage: bool) -> None:
        before, mark, after = event_of(chunk, with_usage=with_usage).rpartition(_escape(MARK))
        if not mark:
            raise ValueError("the chunk has no text to fill in: give MARK as its text")
        self._before = before
        self._after = after

    def fill(self, text: str) -> bytes:
        return self._before + _escape(text) + self._after
