"""The progress of a pull: a bar per stage in a terminal, a line per stage elsewhere. Knows nothing of pulling."""

from __future__ import annotations

import sys
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from server.cli.terminal import amount, console, print_note, size

_SMALLEST_BYTES = 100_000


class ProgressBar:
    """The registry's `Progress`, drawn on standard error; a context manager that always restores the terminal."""

    def __init__(self) -> None:
        terminal = console(sys.stderr)
        self._live = terminal.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeRemainingColumn(),
            console=terminal,
            disable=not self._live,
        )
        self._task: TaskID | None = None
        self._done = self._total = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()

    def stage(self, text: str) -> None:
        self._done = self._total = 0
        if not self._live:
            print_note(text)
            return
        self._finish()
        self._task = self._bars.add_task(text, total=None, amount="")

    def update(self, done: int, total: int | None) -> None:
        self._done, self._total = done, total or 0
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total, amount=_amount(done, total))

    @property
    def reached(self) -> str:
        """How far the present stage is, if it counts bytes: `120.0 of 515.0 MB`; else empty."""
        return amount(self._done, self._total, "bytes") if self._total >= _SMALLEST_BYTES else ""

    def _finish(self) -> None:
        """A stage without a total is shown as done when the next begins."""
        if self._task is not None:
            task = self._bars.tasks[-1]
            self._bars.update(self._task, total=task.completed or 1, completed=task.completed or 1)


def _amount(done: int, total: int | None) -> str:
    """Large counts are bytes; small ones are files, tensors, or other pieces."""
    if total is None:
        return size(done) if done >= _SMALLEST_BYTES else ""
    return amount(done, total, "bytes") if total >= _SMALLEST_BYTES else f"{done} of {total}"
