"""Our engine without HTTP, processes or JSON: what the gateway costs is the difference. Run as a program, it is the child."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from jobs.tasks.benchmark.closed_loop import ClosedLoop
from runtime.protocol.messages import EngineOptions
from tests.benchmarks.child_peer import child, obey
from tests.benchmarks.peer import Model, Running


@dataclass(frozen=True, slots=True)
class InProcess:
    name: str = "engine alone"

    def missing(self) -> str | None:
        return None

    def start(self, model: Model, log: Path) -> AbstractContextManager[Running]:
        return child([sys.executable, "-m", __name__, str(model.folder)], os.environ, log)


def main() -> None:
    from runtime.engines.onnx.engine import build_onnx_engine

    obey(ClosedLoop(build_onnx_engine(Path(sys.argv[1]), EngineOptions())).measure)


if __name__ == "__main__":
    main()
