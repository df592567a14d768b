"""A job's figures as TensorBoard reads them, when TensorBoard is installed; nothing otherwise."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


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
