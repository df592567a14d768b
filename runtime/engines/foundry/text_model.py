"""What `text_engine` needs of a model that takes a text and gives one. Interfaces only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from runtime.batching.sequence import ResolvedParams
from runtime.protocol.events import FinishReason
from runtime.protocol.request import SamplingParams


@dataclass(frozen=True, slots=True)
class Answered:
    """The end of an answer, with the tokens that the model counted."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


class Answer(Protocol):
    """One text being answered."""

    def run(self, on_text: Callable[[str], None]) -> Answered:
        """Blocks; calls `on_text` with whole characters as they arrive. After a cancel it may raise any exception."""
        ...

    def cancel(self) -> None:
        """Makes `run` end as soon as the model can, at the latest with its next text. Thread-safe.

        Does nothing when it has ended.
        """
        ...


class TextModel(Protocol):
    def check(self, requested: SamplingParams) -> None:
        """Raises InvalidRequest for what this model cannot do. Thread-safe."""
        ...

    def answer(self, text: str, params: ResolvedParams) -> Answer:
        """Begins nothing yet."""
        ...

    def close(self) -> None:
        """Releases the model. To be called when no answer runs."""
        ...
