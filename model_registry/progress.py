"""The progress of long work. A terminal shows it as a bar, a job logs it, a test ignores it; this module knows none of them."""

from __future__ import annotations

from typing import Protocol

DOWNLOADING, UNPACKING = "downloading", "unpacking"  # the first words of stages that count bytes


def unit_of(stage: str) -> str:
    """What a stage of this name counts: `bytes`, or else `parts`: of a model, a text or a percentage."""
    return "bytes" if stage.partition(" ")[0] in (DOWNLOADING, UNPACKING) else "parts"


class Progress(Protocol):
    """Called by the thread that does the work. An exception raised from either method stops the work, which cleans up."""

    def stage(self, text: str) -> None:
        """A new stage begins, e.g. `downloading model.gguf`; its counts start again."""

    def update(self, done: int, total: int | None) -> None:
        """`done` of `total` of what the stage counts, see `unit_of`; total is None when unknown."""


class SilentProgress:
    """Ignores all reports."""

    def stage(self, text: str) -> None:
        pass

    def update(self, done: int, total: int | None) -> None:
        pass
