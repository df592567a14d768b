"""A real daemon in a process of its own, for tests: started on a free port, ended whatever happens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil

PROGRAM = (sys.executable, "-c", "from server.cli import main; main()")
ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without its SLMOPS_* variables, and these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLMOPS_")}
    return {**inherited, "SLMOPS_HOME": str(home), "PYTHONPATH": str(ROOT), **extra}


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running one. url: without /v1; log: what it printed."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until_ready(self) -> None:
        """Until the default model is loaded."""
        wait_until_answering(f"{self.url}/ready", self.process, self.log)

    def workers(self) -> list[psutil.Process]:
        """Its live child processes, one per loaded model."""
        return [child for child in psutil.Process(self.process.pid).children() if child.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def running_daemon(
    home: Path, *flags: str, folder: Path | None = None, variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Daemon]:
    """`slmops serve` and these flags, from when /health answers. folder: its current folder, with its log; default: home."""
    port = free_port()
    folder = folder or home
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "daemon.log"
    command = [*PROGRAM, "serve", "--port", str(port), *flags]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment(home, variables), stdout=output, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_answering(f"{url}/health", process, log)
        yield Daemon(url, process, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextmanager
def daemon_process(home: Path, *flags: str, **variables: str) -> Iterator[str]:
    """A running daemon with the fake engine; yields its URL."""
    with running_daemon(home, "--engine", "fake", *flags, variables=variables) as daemon:
        yield daemon.url


def wait_until_answering(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _answers(url):
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            if time.monotonic() < deadline:
                continue
        raise AssertionError(f"{url} does not answer (exit code {process.poll()}):\n{log.read_text()[-3000:]}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status) == 200
    except (urllib.error.URLError, OSError):
        return False
