"""A reporter for tasks that a test runs in its own process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jobs.task import StopReason


class RecordingReporter:
    """A reporter that records what a task reports."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.messages: list[str] = []
        self.stop: StopReason | None = None

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def progress(self, step: int, total: int | None, metrics: Mapping[str, float], unit: str) -> None:
        pass

    def message(self, text: str, level: str = "info") -> None:
        self.messages.append(text)

    def checkpoint(self, step: int, path: Path, metrics: Mapping[str, float]) -> None:
        pass
