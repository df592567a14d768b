"""What a line of training data means, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Chat messages whose assistant turns are learned. tools: as the chat API has them. line: from 1."""

    line: int
    messages: Sequence[Message]
    tools: Sequence[Message] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """Plain text: completion is learned, prompt is not; an empty prompt means that all is learned."""

    line: int
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to the same messages, of which the first is preferred."""

    line: int
    messages: Sequence[Message]
    chosen: str
    rejected: str
    tools: Sequence[Message] = ()


Example = Conversation | Completion | Preference
