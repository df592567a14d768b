"""Tokens to text as they come: no character is cut, and stop strings are found across chunk borders. Knows no model."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass


class TextStream:
    """Incremental detokenizer of one sequence: each token's bytes go through an incremental UTF-8 decoder.

    Bytes that begin a character are held until it is whole; bytes that never become one turn into U+FFFD.
    """

    __slots__ = ("_decoder", "_token_bytes")

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        return self._decoder.decode(self._token_bytes(token))

    def flush(self) -> str:
        """The end of the output: what is left of an unfinished character."""
        return self._decoder.decode(b"", final=True)


@dataclass(frozen=True, slots=True)
class Released:
    """Text that may be shown now, and the stop string that ended it, if one did."""

    text: str
    matched: str | None = None


class StopMatcher:
    """Feed it text in any pieces; the released text and the match are the same however the text is cut.

    Where several stop strings match, the one that begins first wins, then the longer one.
    """

    __slots__ = ("_include", "_pending", "_stops")

    def __init__(self, stops: tuple[str, ...] = (), *, include: bool = False) -> None:
        self._stops = tuple(sorted((s for s in stops if s), key=len, reverse=True))
        self._include = include
        self._pending = ""

    def feed(self, text: str) -> Released:
        """Adds text. After a match nothing more may be fed."""
        if not self._stops:
            return Released(text)
        buffer = self._pending + text
        held = self._held(buffer)
        found = self._earliest(buffer, len(buffer) - held)
        if found is not None:
            start, stop = found
            return Released(buffer[: start + len(stop)] if self._include else buffer[:start], stop)
        self._pending = buffer[len(buffer) - held :]
        return Released(buffer[: len(buffer) - held])

    def flush(self) -> Released:
        """What was held back, at the end of the output; a shorter stop string inside it still counts."""
        buffer, self._pending = self._pending, ""
        found = self._earliest(buffer, len(buffer))
        if found is None:
            return Released(buffer)
        start, stop = found
        return Released(buffer[: start + len(stop)] if self._include else buffer[:start], stop)

    def _earliest(self, buffer: str, before: int) -> tuple[int, str] | None:
        """The match that starts first among those starting before `before`; ties go to the longer stop string."""
        best: tuple[int, str] | None = None
        for stop in self._stops:
            at = buffer.find(stop)
            if 0 <= at < before and (best is None or at < best[0]):
                best = (at, stop)
        return best

    def _held(self, buffer: str) -> int:
        """Length of the longest suffix of the buffer that could still grow into a stop string."""
        for size in range(min(len(self._stops[0]) - 1, len(buffer)), 0, -1):
            tail = buffer[-size:]
            if any(len(stop) > size and stop.startswith(tail) for stop in self._stops):
                return size
        return 0
