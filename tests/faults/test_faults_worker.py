"""Workers that are killed, crash again and again, or hang: their requests end with a clear error, nothing else notices."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.doubles.daemon_process import Daemon, running_daemon
from tests.faults.open_requests import CHAT, ENDLESS, HealthWatch, OpenRequest, all_started, chat_body, with_client

ENDS_WITHIN_S = 1.0
FLAGS = ("--engine", "fake", "--shutdown-grace-s", "0")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running_daemon(tmp_path, *FLAGS) as daemon:
        daemon.wait_until_ready()
        yield daemon


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_ends_every_open_request_within_a_second(daemon: Daemon, number: signal.Signals) -> None:
    async def kill_under_load(client: httpx.AsyncClient) -> None:
        streams = [OpenRequest(client, CHAT, chat_body(ENDLESS, stream=True)) for _ in range(15)]
        await all_started(streams)
        whole = OpenRequest(client, CHAT, chat_body(ENDLESS))
        watch = HealthWatch(client)
        while (await client.get("/admin/models")).json()["data"][0]["num_leases"] < 16:
            assert not whole.ending.done()
        (worker,) = daemon.workers()
        killed = time.monotonic()
        worker.send_signal(number)
        endings = [await request.ending for request in streams]
        assert all(ending.status == 200 for ending in endings)
        rejected = await whole.ending
        assert rejected.status == 503
        for ending in [*endings, rejected]:
            assert ending.error["code"] == "engine_dead"
            assert "Retry" in ending.error["message"]
            assert ending.at - killed < ENDS_WITHIN_S
        answer = await client.post(CHAT, json=chat_body("still there?"))
        assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, "You said: still there?")
        await watch.stop()
        assert watch.statuses == {200}
        assert watch.slowest_s < ENDS_WITHIN_S

    with_client(daemon.url, kill_under_load)
    assert len(daemon.workers()) == 1


def test_a_worker_that_crashes_again_and_again_is_restarted_each_time(daemon: Daemon) -> None:
    with httpx.Client(base_url=daemon.url, timeout=30, trust_env=False) as http:
        for _ in range(3):
            crashed = http.post(CHAT, json=chat_body("[[crash]]"))
            assert (crashed.status_code, crashed.json()["error"]["code"]) == (503, "engine_dead")
            assert int(crashed.headers["retry-after"]) >= 1
            assert http.get("/health").status_code == 200
        assert http.post(CHAT, json=chat_body("hi")).status_code == 200
        (loaded,) = http.get("/admin/models").json()["data"]
        assert (loaded["num_restarts"], loaded["state"], loaded["num_leases"]) == (3, "ready", 0)


def test_a_step_that_hangs_blocks_nobody_else_and_can_be_stopped(daemon: Daemon) -> None:
    async def hang(client: httpx.AsyncClient) -> None:
        stuck = [OpenRequest(client, CHAT, chat_body("[[hang]]", stream=streams)) for streams in (True, False)]
        watch = HealthWatch(client)
        for path in ("/v1/models", "/metrics", "/admin/models", "/ready"):
            assert (await client.get(path)).status_code == 200
        assert not any(request.ending.done() for request in stuck)
        assert (await client.post("/admin/models/smollm2-135m/unload")).json() == {"unloaded": ["smollm2-135m:1"]}
        for request in stuck:
            ending = await request.ending
            assert ending.status == 503
            assert "unloaded" in ending.error["message"]
        assert (await client.post(CHAT, json=chat_body("and now?"))).status_code == 200
        await watch.stop()
        assert watch.statuses == {200}

    with_client(daemon.url, hang)


def test_a_worker_that_hangs_is_replaced_before_its_requests_time_out(tmp_path: Path) -> None:
    with (
        running_daemon(tmp_path, *FLAGS, variables={"SLMOPS_STEP_TIMEOUT_S": "1"}) as daemon,
        httpx.Client(base_url=daemon.url, timeout=30, trust_env=False) as http,
    ):
        daemon.wait_until_ready()
        (hung,) = daemon.workers()
        error = http.post(CHAT, json=chat_body("[[hang]]")).json()["error"]
        assert (error["code"], "a step took longer than 1 s" in error["message"]) == ("engine_dead", True)
        assert http.post(CHAT, json=chat_body("and now?")).status_code == 200
        assert [worker.pid for worker in daemon.workers()] != [hung.pid]
        assert 'slmops_worker_deaths_total{engine="1",model_name="smollm2-135m"} 1.0' in http.get("/metrics").text


def test_a_request_over_its_time_gets_a_retry_after(tmp_path: Path) -> None:
    with (
        running_daemon(tmp_path, *FLAGS, "--request-timeout-s", "0.5") as daemon,
        httpx.Client(base_url=daemon.url, timeout=30, trust_env=False) as http,
    ):
        late = http.post(CHAT, json=chat_body(ENDLESS))
        assert late.status_code == 503
        assert int(late.headers["retry-after"]) >= 1
        assert late.json()["error"]["code"] == "deadline_exceeded"
        assert "not finished within its deadline" in late.json()["error"]["message"]
        streamed = http.post(CHAT, json=chat_body(ENDLESS, stream=True))
        assert streamed.status_code == 200
        assert '"deadline_exceeded"' in streamed.text.splitlines()[-2]
        assert http.post(CHAT, json=chat_body("hi")).status_code == 200


def test_a_request_in_a_hung_engine_ends_soon_after_its_time(tmp_path: Path) -> None:
    """The engine cannot notice that the time is over, so the gateway does."""
    with running_daemon(tmp_path, *FLAGS, "--request-timeout-s", "0.5") as daemon:
        daemon.wait_until_ready()

        async def hang(client: httpx.AsyncClient) -> None:
            requests = [OpenRequest(client, CHAT, chat_body("[[hang]]", stream=streams)) for streams in (True, False)]
            requests.append(OpenRequest(client, "/v1/completions", {"prompt": ["a", "b"]}))
            for request in requests:
                ending = await request.ending
                assert ending.status == 503
                assert ending.error["code"] == "deadline_exceeded"

        with_client(daemon.url, hang)
