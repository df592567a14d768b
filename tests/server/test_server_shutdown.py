"""How a daemon ends, and how it refuses to begin: a real process, real signals."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.app import serve
from server.daemon import CannotListenError, open_socket
from server.settings.daemon import Settings
from tests.doubles.live_server import chat_body, error_of, events_of
from tests.doubles.logged_daemon import ROOT, DaemonProcess

CHAT = "/v1/chat/completions"
SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("number", SIGNALS)
def test_a_running_stream_finishes_while_new_requests_are_refused(tmp_path: Path, http: httpx.Client, number: Any) -> None:
    with DaemonProcess(tmp_path, shutdown_grace_s=20) as daemon:
        body = chat_body("[[count: 40]][[delay: 0.01]]", stream=True)
        with http.stream("POST", daemon.url + CHAT, json=body) as response:
            events = events_of(response)
            next(events)
            daemon.signal(number)
            daemon.wait_for("draining; a second signal ends at once")
            refused = http.post(daemon.url + CHAT, json=chat_body("me too"))
            assert error_of(refused, 503)["code"] == "draining"
            assert int(refused.headers["retry-after"]) >= 1
            assert error_of(http.get(daemon.url + "/ready"), 503)["message"] == "The server is shutting down."
            assert http.get(daemon.url + "/health").status_code == 200
            rest = list(events)
        assert rest[-1] == "[DONE]"
        assert rest[-2]["choices"][0]["finish_reason"] == "stop"
        assert daemon.end() == 0


def test_a_stream_that_outlives_the_grace_period_ends_with_an_error_event(tmp_path: Path, http: httpx.Client) -> None:
    with DaemonProcess(tmp_path, shutdown_grace_s=0.2) as daemon:
        body = chat_body("[[endless]][[delay: 0.01]]", stream=True)
        with http.stream("POST", daemon.url + CHAT, json=body) as response:
            events = events_of(response)
            next(events)
            daemon.signal(signal.SIGTERM)
            rest = list(events)
        assert rest[-1]["error"]["code"] == "draining"
        assert daemon.end() == 0


def test_a_second_signal_ends_at_once(tmp_path: Path, http: httpx.Client) -> None:
    with DaemonProcess(tmp_path, shutdown_grace_s=600) as daemon:
        body = chat_body("[[endless]][[delay: 0.01]]", stream=True)
        with http.stream("POST", daemon.url + CHAT, json=body) as response:
            events = events_of(response)
            next(events)
            daemon.signal(signal.SIGTERM)
            daemon.wait_for("draining; a second signal ends at once")
            daemon.signal(signal.SIGTERM)
            assert daemon.end(timeout_s=10) == 128 + signal.SIGTERM
        assert daemon.lines[-1]["event"] == "ending at once"


def test_an_idle_daemon_ends_with_no_error_and_no_warning(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path) as daemon:
        daemon.wait_for("model ready")
        daemon.signal(signal.SIGTERM)
        assert daemon.end() == 0
        assert [line for line in daemon.lines if line.get("level") not in ("info", "debug")] == []


def test_the_log_has_ids_counts_and_times_but_no_content(tmp_path: Path, http: httpx.Client) -> None:
    with DaemonProcess(tmp_path, log_level="debug") as daemon:
        answer = http.post(daemon.url + CHAT, json=chat_body("my secret"), headers={"X-Request-Id": "mine"})
        assert "my secret" in answer.text
        http.post(daemon.url + CHAT, json=chat_body("my secret [[fail]]"))
        http.post(daemon.url + CHAT, json={"messages": "my secret", "stop": "my secret"})
        http.get(daemon.url + "/v1/models/my-secret?secret=1")
        daemon.signal(signal.SIGTERM)
        daemon.end()
    first = next(line for line in daemon.lines if line.get("request_id") == "mine")
    assert (first["event"], first["route"], first["status"], first["model"]) == ("request", CHAT, 200, "smollm2-135m:1")
    assert first["completion_tokens"] == len("You said: my secret") + 1
    assert first["first_token_ms"] > 0
    assert first["finish_reason"] == "stop"
    codes = [line.get("code") for line in daemon.lines if line["event"] == "request"]
    assert codes == [None, "step_failed", "invalid_value", "model_not_found"]
    assert "secret" not in str(daemon.lines)


def test_a_taken_port_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert serve(Settings(engine="fake", home=tmp_path, port=port)) == 1
    assert f"port {port} on 127.0.0.1 is in use" in capsys.readouterr().err


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(CannotListenError, match=r"203\.0\.113\.1 is not an address of this machine"):
        open_socket("203.0.113.1", 0)


def test_listening_beyond_loopback_without_a_key_has_exit_code_two(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert serve(Settings(engine="fake", home=tmp_path, host="0.0.0.0")) == 2
    assert "SLMOPS_API_KEY" in capsys.readouterr().err


def test_serving_imports_nothing_heavy(tmp_path: Path) -> None:
    """Once the registry exists: making it is the first start's work."""
    code = f"""
import sys
from server.app import create_app
from server.settings.daemon import Settings
create_app(Settings(home={str(tmp_path)!r}))
heavy = ("torch", "transformers", "onnxruntime", "onnx", "gguf", "huggingface_hub", "alembic", "numpy", "typer")
print([name for name in heavy if name in sys.modules])
"""
    for _ in ("first start", "second start"):
        arguments = [sys.executable, "-c", code]
        got = subprocess.run(arguments, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    assert got.stdout.decode().strip() == "[]"
