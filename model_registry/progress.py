"""How long work tells what it does: a terminal shows a bar, a job a log, a test nothing. Knows none of them."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told by the thread that does the work. An exception raised from either method stops the work, which cleans up."""

    def stage(self, text: str) -> None:
        """A new stage begins, e.g. `downloading model.gguf`; its counts start again."""

    def update(self, done: int, total: int | None) -> None:
        """`done` of `total` units of the stage (bytes when downloading); total is None when unknown."""


class SilentProgress:
    """Tells nobody."""

    def stage(self, text: str) -> None:
        pass

    def update(self, done: int, total: int | None) -> None:
        pass
