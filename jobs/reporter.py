"""What a job's process reports while its task runs: frames to the daemon, and figures to files that TensorBoard reads.

There are no such files where TensorBoard is not installed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobs.messages import Checkpointed, LogMessage, Progressed, Staged
from jobs.task import StopReason
from runtime.protocol.framing import FrameWriter

PROGRESS_EVERY_S = 0.25


class ScalarLog:
    """Event files in `folder`, which is made with the first figure. Each start of a job adds a file; TensorBoard joins them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._is_possible = find_spec("tensorboard") is not None

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        if not self._is_possible or not figures:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._writer is None:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter

            self._writer = EventFileWriter(str(self._folder))
        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class FrameReporter:
    """A `Reporter` that writes frames. stop: set when the daemon requests the end.

    stages: of the task, in order. A stage that is none of them is a part of the one that is going on.
    """

    def __init__(self, frames: FrameWriter, folder: Path) -> None:
        self._frames = frames
        self._folder = folder
        self._scalars = ScalarLog(folder.parent / "tensorboard")
        self._written_s = float("-inf")
        self._number: int | None = None
        self.stages: Sequence[str] = ()
        self.stop: StopReason | None = None

    def close(self) -> None:
        self._scalars.close()

    def stage(self, name: str) -> None:
        if name in self.stages:
            self._number = 1 + self.stages.index(name)
        self._frames.write(Staged(name=name, number=self._number, total=len(self.stages) or None))

    def progress(self, step: int, total: int | None, metrics: Mapping[str, float], unit: str) -> None:
        self._scalars.add(step, metrics)
        now_s = time.monotonic()
        if metrics or step == total or now_s - self._written_s >= PROGRESS_EVERY_S:
            self._written_s = now_s
            self._frames.write(Progressed(step=step, total=total, unit=unit, metrics=dict(metrics)))

    def message(self, text: str, level: str = "info") -> None:
        self._frames.write(LogMessage(text=text, level=level))

    def checkpoint(self, step: int, path: Path, metrics: Mapping[str, float]) -> None:
        relative = path.relative_to(self._folder).as_posix()
        self._frames.write(Checkpointed(step=step, path=relative, metrics=dict(metrics)))
