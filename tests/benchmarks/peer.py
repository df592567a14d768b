"""What is compared: something that can be started, put under a load, and stopped. Owns the words, no behaviour."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jobs.tasks.benchmark.load import Load, LoadReport


@dataclass(frozen=True, slots=True)
class Model:
    """One model in the two forms that peers take: the GGUF it came from, and the ONNX folder imported from it."""

    name: str
    gguf: Path
    folder: Path


@dataclass(frozen=True, slots=True)
class Running:
    """A started peer. pid: the root of its processes. ready_s: from its start until it answers; first_token_s: until it
    has answered with a first token."""

    pid: int
    ready_s: float
    first_token_s: float
    measure: Callable[[Load], LoadReport]


class Peer(Protocol):
    @property
    def name(self) -> str: ...

    def missing(self) -> str | None:
        """None when it is installed; else what to do to install it."""

    def start(self, model: Model, log: Path) -> AbstractContextManager[Running]:
        """Started and ready, until the block ends. Raises PeerFailed."""


class PeerFailed(Exception):
    """A peer did not start, or stopped by itself; the message ends with the end of its log."""
