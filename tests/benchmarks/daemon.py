"""A daemon of slmops under measurement, with a client of its admin API."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from jobs.tasks.benchmark.load import Load, LoadReport, Target, run_load
from tests.benchmarks.http_peer import http_server


@dataclass(frozen=True, slots=True)
class Daemon:
    url: str
    pid: int
    admin: httpx.Client

    def post(self, model: str, verb: str, **requested: Any) -> Any:
        answer = self.admin.post(f"/admin/models/{model}/{verb}", json=requested or None)
        answer.raise_for_status()
        return answer.json()

    def loaded(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.admin.get("/admin/models").json()["data"]
        return rows

    def resident_bytes(self) -> int:
        root = psutil.Process(self.pid)
        return sum(int(process.memory_info().rss) for process in (root, *root.children(recursive=True)))

    def measure(self, load: Load, model: str, *, is_chat: bool = True) -> LoadReport:
        return asyncio.run(run_load(Target(f"{self.url}/v1", model, is_chat=is_chat), load))


@contextmanager
def daemon(model: str, *flags: str) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory() as logs:
        ports: list[int] = []

        def command(port: int) -> Sequence[str]:
            ports.append(port)
            program = (sys.executable, "-c", "from server.cli import main; main()")
            return [*program, "serve", "--model", model, "--port", str(port), *flags]

        with http_server(command, os.environ, Path(logs) / "daemon.log", extra={}) as running:
            url = f"http://127.0.0.1:{ports[0]}"
            with httpx.Client(base_url=url, timeout=600, trust_env=False) as admin:
                yield Daemon(url, running.pid, admin)
