"""A peer that is a server of its own: started as a process, measured over HTTP."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from jobs.tasks.benchmark.load import Target, run_load
from tests.benchmarks.peer import PeerFailed, Running

_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.01


@contextmanager
def http_server(
    command: Callable[[int], Sequence[str]], environment: Mapping[str, str], log: Path, extra: Mapping[str, object]
) -> Iterator[Running]:
    """Runs `command(port)` until the block ends. extra: fields that each request's body gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    started = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(command(port), env=dict(environment), stdout=output, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=_START_TIMEOUT_S) as client:
            _wait_until_ready(client, process, log)
            ready_s = time.perf_counter() - started
            body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0}
            client.post("/v1/chat/completions", json=body).raise_for_status()
            first_token_s = time.perf_counter() - started
        target = Target(f"{url}/v1", extra=extra)
        yield Running(process.pid, ready_s, first_token_s, lambda load: asyncio.run(run_load(target, load)))
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.perf_counter() + _START_TIMEOUT_S
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise PeerFailed(f"it ended with code {process.returncode}: {log.read_text(errors='replace')[-500:]}")
        try:
            if client.get("/health").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(_POLL_S)
    raise PeerFailed(f"/health did not answer within {_START_TIMEOUT_S:g} s: {log.read_text(errors='replace')[-500:]}")
