"""What an answer says, piece by piece, whatever its model's way to write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """More of the text for the reader. Never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the thought, without its tags. Never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallBegin:
    """A call of the tool `name` begins. index: of the call in the answer, from 0; indices come in order, without holes."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """More of the call's arguments, as JSON text. All of them together are one JSON object, unless the answer was cut."""

    index: int
    text: str


Delta = ContentDelta | ReasoningDelta | ToolCallBegin | ToolCallArguments


class AnswerParser(Protocol):
    """Reads an answer in any pieces: the concatenated result is the same however the text is cut. Never raises."""

    def feed(self, text: str) -> list[Delta]:
        """What this much more text says. What could still become something else is held back."""
        ...

    def finish(self) -> list[Delta]:
        """The end of the answer: what was held back. An unfinished call keeps its arguments as far as they came."""
        ...
