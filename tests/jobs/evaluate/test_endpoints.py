"""Calls to endpoints: their key, their rate, busy servers, the messages of refusals, and the endpoints that are allowed at all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from jobs.permissions import EndpointAccess, Grants
from jobs.task import InvalidJob, JobFailure, TaskContext
from jobs.tasks.evaluate.endpoints import Endpoint
from jobs.tasks.evaluate.questions import Question
from jobs.tasks.evaluate.targets import busy_s, check_target, open_target
from model_registry.registry import open_registry
from tests.doubles.heard import RecordingReporter

pytestmark = pytest.mark.api

ANSWER = b'{"choices": [{"message": {"role": "assistant", "content": "a cat"}}]}'


class Teacher(BaseHTTPRequestHandler):
    """Answers with `statuses` in turn, then 200. keys, times: of the requests."""

    statuses: ClassVar[list[int]] = []
    keys: ClassVar[list[str | None]] = []
    hosts: ClassVar[list[str | None]] = []
    times: ClassVar[list[float]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.keys.append(self.headers["Authorization"])
        self.hosts.append(self.headers["Host"])
        self.times.append(time.monotonic())
        status = self.statuses.pop(0) if self.statuses else 200
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    Teacher.statuses, Teacher.keys, Teacher.times, Teacher.hosts = [], [], [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), Teacher) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture
def context(tmp_path: Path) -> Iterator[TaskContext]:
    with open_registry(tmp_path / "home") as registry:
        yield TaskContext("job-1", registry, tmp_path, RecordingReporter())


def granted(context: TaskContext, url: str, **access: Any) -> TaskContext:
    """With a server of this address in the configuration."""
    return replace(context, grants=Grants(endpoints={"teacher": EndpointAccess(url, **access)}))


def answers(context: TaskContext, count: int, **more: Any) -> list[str]:
    target = open_target(Endpoint(endpoint="teacher", **more), context)
    questions = [(number, Question(number, [{"role": "user", "content": "who?"}], "")) for number in range(count)]
    try:
        return [answered.text for _, answered in target.answers(questions, 8)]
    finally:
        target.close()


def test_the_key_is_sent_and_the_rate_kept(url: str, context: TaskContext) -> None:
    assert answers(granted(context, url, key="s3cret"), 4, requests_per_minute=1200) == ["a cat"] * 4
    assert Teacher.keys == ["Bearer s3cret"] * 4
    assert Teacher.times[-1] - Teacher.times[0] > 0.1, "three shares of 50 ms, less what the threads took to begin"


def test_a_busy_server_is_retried_again_and_again_but_not_for_ever(url: str, context: TaskContext) -> None:
    Teacher.statuses = [429, 503, 429]
    assert answers(granted(context, url), 1) == ["a cat"]
    Teacher.statuses = [429] * 6
    with pytest.raises(JobFailure, match="lower concurrency or requests_per_minute") as caught:
        answers(granted(context, url), 1)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("status", "expected_text"),
    [(401, "key_env or key_file of"), (404, "up to and with /v1"), (400, "answered 400"), (307, "is not followed")],
)
def test_a_refusal_names_what_to_look_at(url: str, context: TaskContext, status: int, expected_text: str) -> None:
    Teacher.statuses = [status]
    with pytest.raises(JobFailure, match=expected_text) as caught:
        answers(granted(context, url), 1)
    assert not caught.value.retryable


def test_only_granted_endpoints_are_called(context: TaskContext) -> None:
    with pytest.raises(InvalidJob, match="has no endpoint 'teacher'"):
        open_target(Endpoint(endpoint="teacher"), context)


@pytest.mark.parametrize(
    "old", [{"url": "http://127.0.0.1/v1"}, {"endpoint": "x", "key_env": "PATH"}, {"url": "x", "allow_remote": True}]
)
def test_addresses_and_keys_are_no_params(old: dict[str, Any]) -> None:
    message = r"add \[endpoints.NAME\] with url and key_env to slmops.toml, restart the daemon"
    with pytest.raises(ValidationError, match=rf"cannot be set by a job: {message}"):
        Endpoint.model_validate(old)


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Makes names resolve to these addresses, one after another. Returns the names that were looked up."""
    requested: list[str] = []
    genuine = socket.getaddrinfo

    def getaddrinfo(host: str, *more: Any, **also: Any) -> Any:
        if not host.endswith(".example"):
            return genuine(host, *more, **also)
        requested.append(host)
        address = answers[min(len(requested), len(answers)) - 1]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return requested


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "::1",
        "fe80::1%eth0",
        "::ffff:127.0.0.1",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
    ],
)
def test_a_name_means_no_private_address_unless_it_may(context: TaskContext, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolving(monkeypatch, address)
    with pytest.raises(InvalidJob, match=r"Set `private = true` in its table"):
        open_target(Endpoint(endpoint="teacher"), granted(context, "http://llm.example/v1"))
    open_target(Endpoint(endpoint="teacher"), granted(context, "http://llm.example/v1", is_private=True)).close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://localhost/v1", "http://10.0.0.1/v1", "http://[::1]:80/v1"])
def test_an_address_that_is_written_out_is_listed(context: TaskContext, url: str) -> None:
    open_target(Endpoint(endpoint="teacher"), granted(context, url)).close()


def test_the_address_that_was_checked_is_connected_to(url: str, context: TaskContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that means something else a moment later leads nowhere else."""
    requested = resolving(monkeypatch, "127.0.0.1", "192.0.2.7")
    port = url.rpartition(":")[2]
    assert answers(granted(context, f"http://llm.example:{port}", is_private=True), 2) == ["a cat"] * 2
    assert Teacher.hosts == [f"llm.example:{port.partition('/')[0]}"] * 2
    assert requested == ["llm.example"]


def test_a_name_that_turns_private_between_plan_and_run_is_refused(context: TaskContext, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "93.184.216.34", "127.0.0.1")
    there = granted(context, "http://llm.example/v1")
    assert check_target(Endpoint(endpoint="teacher"), there, "target") == "llm.example"
    with pytest.raises(InvalidJob, match=r"means 127\.0\.0\.1"):
        open_target(Endpoint(endpoint="teacher"), there)


def test_how_long_a_busy_server_is_left_alone() -> None:
    assert [busy_s(None, attempt) for attempt in (0, 1, 2, 9)] == [1.0, 2.0, 4.0, 60.0]
    assert (busy_s("7", 0), busy_s("3600", 0), busy_s("Wed, 21 Oct 2026 07:28:00 GMT", 0)) == (7.0, 60.0, 1.0)
