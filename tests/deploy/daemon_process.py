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
from pathlib import Path

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
    return inherited | {"SLMOPS_HOME": str(home), "PYTHONPATH": str(ROOT)} | extra


@contextmanager
def daemon_process(home: Path, *flags: str, **variables: str) -> Iterator[str]:
    """`slmops serve --engine fake` and these flags; yields its URL (without /v1) once /health answers."""
    port = free_port()
    home.mkdir(parents=True, exist_ok=True)
    log = home / "daemon.log"
    command = [*PROGRAM, "serve", "--engine", "fake", "--port", str(port), *flags]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=home, env=environment(home, variables), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_answering(f"{url}/health", process, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


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
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False
