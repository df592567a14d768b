"""Ours: `slmops serve` on the registered model."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.http_peer import http_server
from tests.benchmarks.peer import Model, Running


@dataclass(frozen=True, slots=True)
class SlmopsDaemon:
    name: str = "slmops"
    flags: tuple[str, ...] = ()

    def missing(self) -> str | None:
        return None

    def start(self, model: Model, log: Path) -> AbstractContextManager[Running]:
        program = (sys.executable, "-c", "from server.cli import main; main()")

        def command(port: int) -> list[str]:
            return [*program, "serve", "--model", model.name, "--port", str(port), *self.flags]

        return http_server(command, os.environ, log, extra={})
