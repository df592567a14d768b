"""However the gateway ends, no worker outlives it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tests.doubles.daemon_process import Daemon, running_daemon
from tests.faults.open_requests import CHAT, ENDLESS, OpenRequest, chat_body, with_client

GONE_WITHIN_S = 5.0
WORK = {"idle": [], "busy": [ENDLESS] * 4, "hung": ["[[hang]]"]}


def kill(daemon: Daemon) -> None:
    daemon.process.kill()


def end_twice(daemon: Daemon) -> None:
    """The first signal begins a drain that would take minutes."""
    daemon.process.send_signal(signal.SIGTERM)
    while "draining" not in daemon.log.read_text():
        assert daemon.process.poll() is None
    daemon.process.send_signal(signal.SIGTERM)


def end(daemon: Daemon) -> None:
    daemon.process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize(("case", "grace_s"), [(kill, 60), (end_twice, 600), (end, 0.2)])
def test_no_worker_stays(tmp_path: Path, work: str, case: Callable[[Daemon], None], grace_s: float) -> None:
    with running_daemon(tmp_path, "--engine", "fake", "--shutdown-grace-s", str(grace_s)) as daemon:
        daemon.wait_until_ready()
        workers = daemon.workers()
        assert len(workers) == 1

        async def break_it(client: httpx.AsyncClient) -> None:
            requests = [OpenRequest(client, CHAT, chat_body(text, stream=True)) for text in WORK[work]]
            while (await client.get("/admin/models")).json()["data"][0]["num_leases"] < len(requests):
                assert not any(request.ending.done() for request in requests)
            case(daemon)
            await asyncio.gather(*(request.ending for request in requests), return_exceptions=True)

        with_client(daemon.url, break_it)
        daemon.process.wait(GONE_WITHIN_S)
        _, alive = psutil.wait_procs(workers, timeout=GONE_WITHIN_S)
        assert alive == []
