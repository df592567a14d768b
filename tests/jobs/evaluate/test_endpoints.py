"""Endpoints that are asked: their key, their rate, when they are busy, what their refusals tell, and who may be asked at all."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from jobs.job import InvalidJob, JobFailure
from jobs.tasks.evaluation.questions import Question
from jobs.tasks.evaluation.targets import Endpoint, busy_s, open_target
from jobs.tasks.protocol import TaskContext
from model_registry.registry import Registry
from tests.jobs.heard import Heard

ANSWER = b'{"choices": [{"message": {"role": "assistant", "content": "a cat"}}]}'


class Teacher(BaseHTTPRequestHandler):
    """Says `statuses` in turn, then 200. keys, times: of the requests."""

    statuses: ClassVar[list[int]] = []
    keys: ClassVar[list[str | None]] = []
    times: ClassVar[list[float]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.keys.append(self.headers["Authorization"])
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
    Teacher.statuses, Teacher.keys, Teacher.times = [], [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), Teacher) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture
def context(tmp_path: Path) -> Iterator[TaskContext]:
    with Registry(tmp_path / "home") as registry:
        yield TaskContext("job-1", registry, tmp_path, Heard())


def answers(endpoint: Endpoint, context: TaskContext, count: int) -> list[str]:
    target = open_target(endpoint, context)
    questions = [(number, Question(number, [{"role": "user", "content": "who?"}], "")) for number in range(count)]
    try:
        return [answered.text for _, answered in target.answers(questions, 8)]
    finally:
        target.close()


def test_the_key_is_sent_and_the_rate_kept(url: str, context: TaskContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "s3cret")
    assert answers(Endpoint(url=url, key_env="TEACHER_KEY", requests_per_minute=1200), context, 4) == ["a cat"] * 4
    assert Teacher.keys == ["Bearer s3cret"] * 4
    assert Teacher.times[-1] - Teacher.times[0] > 0.1, "three shares of 50 ms, less what the threads took to begin"


def test_a_busy_server_is_asked_again_and_again_but_not_for_ever(url: str, context: TaskContext) -> None:
    Teacher.statuses = [429, 503, 429]
    assert answers(Endpoint(url=url), context, 1) == ["a cat"]
    Teacher.statuses = [429] * 6
    with pytest.raises(JobFailure, match="lower concurrency or requests_per_minute") as caught:
        answers(Endpoint(url=url), context, 1)
    assert caught.value.may_pass


@pytest.mark.parametrize(("status", "said"), [(401, "key_env"), (404, "up to and with /v1"), (400, "answered 400")])
def test_a_refusal_tells_what_to_look_at(url: str, context: TaskContext, status: int, said: str) -> None:
    Teacher.statuses = [status]
    with pytest.raises(JobFailure, match=said) as caught:
        answers(Endpoint(url=url), context, 1)
    assert not caught.value.may_pass


def test_another_machine_is_never_asked_unless_it_may_be(context: TaskContext) -> None:
    with pytest.raises(InvalidJob, match="allow_remote"):
        open_target(Endpoint(url="http://192.0.2.7/v1"), context)


def test_how_long_a_busy_server_is_left_alone() -> None:
    assert [busy_s(None, attempt) for attempt in (0, 1, 2, 9)] == [1.0, 2.0, 4.0, 60.0]
    assert (busy_s("7", 0), busy_s("3600", 0), busy_s("Wed, 21 Oct 2026 07:28:00 GMT", 0)) == (7.0, 60.0, 1.0)
