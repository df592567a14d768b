"""`slmops ps`, `load`, `reload`, `stop` and `reset` against a real daemon, as text and as JSON, wide and on 80 columns."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.cli.daemon import Daemon
from server.cli.loaded import loaded_models
from tests.doubles.daemon_process import PROGRAM, daemon_process, environment

pytestmark = pytest.mark.api

Slmops = Callable[..., "subprocess.CompletedProcess[str]"]
MODEL = "smollm2-135m"
OTHER = "a-model-with-a-longer-name-1.5b"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def variables(home: Path) -> Iterator[dict[str, str]]:
    with daemon_process(home, SLMOPS_MODELS=json.dumps({OTHER: {"replicas": 2}})) as url:
        yield environment(home, {"SLMOPS_PORT": url.rpartition(":")[2]})


@pytest.fixture
def slmops(home: Path, variables: dict[str, str]) -> Slmops:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*PROGRAM, *arguments]
        return subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True, timeout=60, check=False)

    return run


def rows(slmops: Slmops) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in json.loads(slmops("ps", "--json").stdout)}


def test_load_says_where_and_for_how_long(slmops: Slmops) -> None:
    run = slmops("load", MODEL, "--keep-alive", "1h30m")
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{MODEL}:1 is loaded: fake/Fake, kept for 1 h after each request\n", "")
    assert slmops("load", MODEL, "--keep-alive", "-1").stdout.endswith("kept for ever\n")
    assert slmops("load", MODEL, "--pin").stdout.endswith("pinned\n")
    loaded = json.loads(slmops("load", MODEL, "--unpin", "--keep-alive", "5m", "--json").stdout)
    assert (loaded["id"], loaded["keep_alive_s"], loaded["pinned"]) == (f"{MODEL}:1", 300, False)


def test_reload_changes_what_is_reported_and_nothing_else(slmops: Slmops) -> None:
    slmops("load", MODEL)
    before = rows(slmops)[f"{MODEL}:1"]
    run = slmops("reload", MODEL, "--num-slots", "3", "--threads", "1")
    assert (run.returncode, run.stdout.split(":1 ")[1].split(",")[0]) == (0, "is reloaded: fake/Fake")
    after = json.loads(slmops("reload", MODEL, "--context-length", "512", "--json").stdout)
    assert (after["num_slots"], after["context_length"], after["keep_alive_s"]) == (3, 512, before["keep_alive_s"])
    assert after["pid"] != before["pid"]
    refused = slmops("reload", MODEL, "--providers", "abacus")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "abacus" in refused.stderr


def test_stop_and_reset(slmops: Slmops) -> None:
    slmops("load", MODEL)
    assert slmops("stop", MODEL, "--grace-s", "5").stdout == f"{MODEL} is unloaded\n"
    again = slmops("stop", MODEL, "--json")
    assert again.returncode == 1
    assert "not loaded" in again.stderr
    slmops("load", MODEL)
    assert json.loads(slmops("stop", MODEL, "--json").stdout) == {"unloaded": [f"{MODEL}:1"]}
    assert slmops("reset", MODEL).stdout == f"{MODEL} will be tried again\n"
    assert json.loads(slmops("reset", MODEL, "--json").stdout) == {"reset": f"{MODEL}:1"}


@pytest.mark.parametrize("verb", ["load", "reload", "reset"])
def test_an_unknown_model_is_one_line(slmops: Slmops, verb: str) -> None:
    run = slmops(verb, "absent")
    assert (run.returncode, run.stderr.count("\n")) == (1, 1)
    assert "'absent'" in run.stderr


def test_a_bad_keep_alive_says_how_it_is_written(slmops: Slmops) -> None:
    run = slmops("load", MODEL, "--keep-alive", "soon")
    assert run.returncode == 1
    assert '"10m"' in run.stderr


def test_ps_of_nothing(slmops: Slmops) -> None:
    for label in rows(slmops):
        slmops("stop", label)
    assert slmops("ps").stdout == "no model is loaded; the first request loads one\n"
    assert slmops("ps", "--json").stdout == "[]\n"


def test_ps_has_a_line_per_model_and_the_budget_below(slmops: Slmops) -> None:
    slmops("load", MODEL, "--keep-alive", "-1", "--unpin")
    slmops("load", OTHER, "--keep-alive", "1h", "--pin")
    lines = slmops("ps").stdout.splitlines()
    assert lines[0].split() == ["MODEL", "STATE", "RUNS", "ON", "MEMORY", "THREADS", "BUSY", "QUEUE", "LEAVES"]
    assert lines[1].split()[:3] == [f"{MODEL}:1", "ready", "fake/Fake"]
    assert lines[1].split()[-1] == "never"
    assert lines[2].split()[:2] == [f"{OTHER}:1", "x2"]
    assert lines[2].split()[-1] == "pinned"
    assert lines[-1].startswith("of the memory budget of ")


def test_ps_fits_80_columns(slmops: Slmops, home: Path, variables: dict[str, str]) -> None:
    slmops("load", MODEL, "--keep-alive", "10m", "--unpin")
    slmops("stop", OTHER)
    lines = in_terminal(["ps"], home, variables, columns=80)
    assert max(map(len, lines)) <= 80
    heading, row = lines[:2]
    assert heading.split()[-1] == "LEAVES"
    assert row.startswith(f"{MODEL}:1  ready")
    assert row.endswith("in 9 min")


def test_a_long_name_stays_whole(slmops: Slmops, home: Path, variables: dict[str, str]) -> None:
    slmops("load", OTHER)
    lines = in_terminal(["ps"], home, variables, columns=80)
    assert max(map(len, lines)) <= 80
    assert any(line.startswith(f"{OTHER}:1 ") and " ready " in line for line in lines), lines


def in_terminal(arguments: list[str], folder: Path, variables: dict[str, str], *, columns: int) -> list[str]:
    """What a terminal so wide would show, without what only colours it."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    known = {**variables, "TERM": "dumb", "NO_COLOR": "1"}
    known.pop("COLUMNS", None)
    with subprocess.Popen([*PROGRAM, *arguments], cwd=folder, env=known, stdout=theirs, stderr=theirs, stdin=theirs):
        os.close(theirs)
        text = _all_of(ours)
    os.close(ours)
    return [line.rstrip() for line in text.decode().splitlines() if line.strip()]


def _all_of(terminal: int) -> bytes:
    """Until the other side is closed, which a terminal reports as an error."""
    text = b""
    while True:
        try:
            text += os.read(terminal, 65_536)
        except OSError:
            return text


def test_a_daemon_of_an_earlier_release_is_listed(
    slmops: Slmops, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reports neither capabilities nor unused builds."""
    slmops("load", MODEL)
    row = {name: value for name, value in rows(slmops)[f"{MODEL}:1"].items() if name not in ("capabilities", "unused")}
    pool = {"data": [row], "broken": [], "waiting": [], "memory_budget_bytes": 1 << 30, "memory_charged_bytes": 0}
    monkeypatch.setattr(Daemon, "require", lambda daemon: daemon)
    monkeypatch.setattr(Daemon, "pool", lambda daemon: pool)
    loaded_models()
    printed = capsys.readouterr().out
    assert f"{MODEL}:1" in printed
    assert "supports" not in printed
