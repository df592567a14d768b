"""How chunks become bytes cheaply: rendered once with a mark for the text, then only the text is escaped per token."""

from __future__ import annotations

import msgspec
from pydantic import BaseModel

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
