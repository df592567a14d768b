"""Commands against a real daemon in a process of its own: run, ps, stop, rm, bench, serve."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from model_registry.artifacts import StagedVariant
from model_registry.records import Manifest, Precision
from model_registry.registry import open_registry
from tests.doubles.daemon_process import PROGRAM, daemon_process, environment

pytestmark = pytest.mark.api

if TYPE_CHECKING:
    from collections.abc import Callable

    Slmops = Callable[..., "subprocess.CompletedProcess[str]"]

KEY = "the-key-of-this-test"
NOTHING_LISTENS = "1"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def port(home: Path) -> Iterator[str]:
    with daemon_process(home, SLMOPS_API_KEY=KEY) as url:
        yield url.rpartition(":")[2]


@pytest.fixture
def variables(home: Path, port: str) -> dict[str, str]:
    return environment(home, {"SLMOPS_PORT": port, "SLMOPS_API_KEY": KEY})


@pytest.fixture
def slmops(home: Path, variables: dict[str, str]) -> Slmops:
    def run(*arguments: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments],
            input=stdin,
            cwd=home,
            env={**variables, **changes},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def loaded(slmops: Slmops) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(slmops("ps", "--json").stdout)
    return rows


def test_run_prints_the_answer_and_nothing_else(slmops: Slmops) -> None:
    run = slmops("run", "Hello, what is new?")
    assert (run.returncode, run.stdout, run.stderr) == (0, "You said: Hello, what is new?\n", "")


@pytest.mark.parametrize("arguments", [("run",), ("run", "-")])
def test_run_reads_a_piped_prompt(slmops: Slmops, arguments: tuple[str, ...]) -> None:
    assert slmops(*arguments, stdin="piped äöü").stdout == "You said: piped äöü\n"


@pytest.mark.parametrize(
    "words", [("smollm2-135m", "Sum", "up:"), ("SmolLM2-135M:latest", "Sum up:"), ("-m", "smollm2-135m", "Sum up:")]
)
def test_run_takes_a_model_a_prompt_and_piped_text(slmops: Slmops, words: tuple[str, ...]) -> None:
    assert slmops("run", *words, stdin="piped").stdout == "You said: Sum up:\n\npiped\n"


@pytest.mark.parametrize(
    "arguments", [("run", "smollm2-360m", "Hi"), ("run", "-m", "smollm2-360m", "Hi"), ("load", "smollm2-360m")]
)
def test_a_missing_model_beside_a_daemon_is_named_with_the_command(slmops: Slmops, arguments: tuple[str, ...]) -> None:
    run = slmops(*arguments)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1)
    assert "slmops pull smollm2-360m" in run.stderr


def test_logs_of_a_daemon_that_no_service_manager_started(slmops: Slmops) -> None:
    slmops("run", "A secret of mine")
    run = slmops("logs", "--json", "--lines", "50")
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    routes = [line["fields"]["route"] for line in lines if line["event"] == "request"]
    assert "/v1/chat/completions" in routes
    assert "/admin/logs" not in routes
    assert "secret" not in run.stdout
    (last,) = slmops("logs", "-n", "1").stdout.splitlines()
    assert "request" in last
    assert "journalctl" in slmops("logs", SLMOPS_PORT=NOTHING_LISTENS).stderr
    assert "SLMOPS_API_KEY" in slmops("logs", SLMOPS_API_KEY="wrong").stderr


def test_followed_logs_go_on_until_interrupted(slmops: Slmops, home: Path, variables: dict[str, str]) -> None:
    command = [*PROGRAM, "logs", "--follow", "-n", "1"]
    with subprocess.Popen(command, cwd=home, env=variables, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        slmops("run", "Next")
        assert any("/v1/chat/completions" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_run_of_nothing_is_misuse(slmops: Slmops) -> None:
    run = slmops("run", stdin="  \n")
    assert run.returncode == 2
    assert "PROMPT" in run.stderr


def test_run_passes_options_on(slmops: Slmops) -> None:
    assert slmops("run", "[[endless]]", "--max-tokens", "5").stdout == "xxxxx\n"
    refused = slmops("run", "Hi", "--temperature", "-1")
    assert refused.returncode == 1
    assert "temperature" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_run_with_a_wrong_key_or_model_is_one_line(slmops: Slmops) -> None:
    wrong_key = slmops("run", "Hi", SLMOPS_API_KEY="wrong")
    assert (wrong_key.returncode, wrong_key.stderr.count("\n")) == (1, 1)
    assert "key" in wrong_key.stderr.lower()
    unknown = slmops("run", "Hi", "--model", "absent")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
    assert "absent" in unknown.stderr


def test_interrupted_answer_ends_with_130_and_frees_its_slot(slmops: Slmops, home: Path, variables: dict[str, str]) -> None:
    command = [*PROGRAM, "run", "[[endless]] [[delay: 0.005]]"]
    with subprocess.Popen(command, cwd=home, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(3) == b"xxx"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert rest.strip(b"x") == b"\n"
    assert errors == b""
    assert slmops("run", "Next").stdout == "You said: Next\n"
    assert [row["num_running"] for row in loaded(slmops)] == [0]


def test_ps_and_stop(slmops: Slmops) -> None:
    slmops("run", "Load it")
    (row,) = loaded(slmops)
    assert row["id"] == "smollm2-135m:1"
    table = slmops("ps").stdout.splitlines()
    assert table[0].split()[0] == "MODEL"
    assert table[1].split()[:2] == ["smollm2-135m:1", "ready"]
    assert slmops("stop", "smollm2-135m").returncode == 0
    assert loaded(slmops) == []
    again = slmops("stop", "smollm2-135m")
    assert again.returncode == 1
    assert "not loaded" in again.stderr


def test_rm_refuses_what_the_daemon_has_loaded(slmops: Slmops, home: Path) -> None:
    with open_registry(home) as registry, registry.staging() as folder:
        (folder / "model.onnx").write_text("weights")
        manifest = Manifest(source="file:///x", importer="test", architecture="llama", context_length=64)
        registry.publish("smollm2-135m", manifest, [StagedVariant(Precision.INT8, "cpu", folder)])
    slmops("run", "Load it")
    refused = slmops("rm", "smollm2-135m")
    assert refused.returncode == 1
    assert "slmops stop" in refused.stderr
    slmops("stop", "smollm2-135m")
    assert slmops("rm", "smollm2-135m").returncode == 0


def test_bench_reports_every_number_of_clients(slmops: Slmops) -> None:
    run = slmops("bench", "--clients", "1,3", "--requests", "6", "--max-tokens", "8", "--json")
    reports = json.loads(run.stdout)
    assert [(report["num_clients"], report["num_ok"], report["num_errors"]) for report in reports] == [
        (1, 6, 0),
        (3, 6, 0),
    ]
    assert all(report["completion_tokens"] == 48 for report in reports)
    assert all(report["tokens_per_s"] > 0 for report in reports)
    table = slmops("bench", "--clients", "2", "--requests", "2").stdout.splitlines()
    assert table[0].split()[:2] == ["CLIENTS", "TOKENS/S"]
    assert table[1].split()[0] == "2"


def test_bench_of_a_server_that_refuses_says_why(slmops: Slmops) -> None:
    run = slmops("bench", "--clients", "1", "--requests", "2", "--model", "absent")
    assert run.returncode == 1
    assert "404" in run.stderr


def test_run_without_a_daemon_serves_in_process_and_leaves_nothing(slmops: Slmops, home: Path) -> None:
    run = slmops("run", "Hello", SLMOPS_PORT=NOTHING_LISTENS, SLMOPS_ENGINE="fake", SLMOPS_LOG_FORMAT="orphan")
    assert run.returncode == 2
    assert "SLMOPS_LOG_FORMAT" in run.stderr
    run = slmops("run", "Hello", SLMOPS_PORT=NOTHING_LISTENS, SLMOPS_ENGINE="fake", MARK_OF_THIS_TEST="yes")
    assert (run.returncode, run.stdout, run.stderr) == (0, "You said: Hello\n", "")
    assert [process for process in psutil.process_iter() if marked(process)] == []


def marked(process: psutil.Process) -> bool:
    try:
        return "MARK_OF_THIS_TEST" in process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def test_serve_ends_with_0_on_a_signal(home: Path) -> None:
    with daemon_process(home) as url:
        (daemon,) = [p for p in psutil.Process().children() if url.rpartition(":")[2] in p.cmdline()]
        daemon.terminate()
        assert daemon.wait(20) == 0


def test_serve_beyond_loopback_needs_a_key(slmops: Slmops) -> None:
    run = slmops("serve", "--engine", "fake", "--host", "0.0.0.0", SLMOPS_API_KEY="")
    assert run.returncode == 2
    assert "SLMOPS_API_KEY" in run.stderr


def test_serve_on_a_port_in_use_says_so(slmops: Slmops) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        run = slmops("serve", "--engine", "fake", "--port", port)
    assert run.returncode == 1
    assert port in run.stderr
    assert "Traceback" not in run.stderr
