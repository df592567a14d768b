"""The progress of long work. A terminal shows it as a bar, a job logs it, a test ignores it; this module knows none of them."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by the thread that does the work. An exception raised from either method stops the work, which cleans up."""

    def stage(self, text: str) -> None:
        """A new stage begins, e.g. `downloading model.gguf`; its counts start again."""

    def update(self, done: int, total: int | None) -> None:
        """`done` of `total` units of the stage (bytes when downloading); total is None when unknown."""


class SilentProgress:
    """Ignores all reports."""

    def stage(self, text: str) -> None:
        pass

    def update(self, done: int, total: int | None) -> None:
        pass
