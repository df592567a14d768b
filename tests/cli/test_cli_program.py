"""Exit codes, error lines, settings and the version: what every command shares."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from server.cli import program
from server.cli.description import outline
from server.cli.failures import CommandFailed, ending
from server.cli.terminal import size, span

if TYPE_CHECKING:
    from tests.cli.conftest import Slmops

COMMANDS = [
    "serve",
    "run",
    "pull",
    "list",
    "show",
    "rm",
    "verify",
    "gc",
    "catalog",
    "ps",
    "load",
    "reload",
    "stop",
    "reset",
    "providers",
    "doctor",
    "foundry",
    "bench",
    "config",
    "version",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(slmops: Slmops, command: str) -> None:
    run = slmops(command, "--help")
    assert run.code == 0
    assert "Usage: slmops" in run.out


@pytest.mark.parametrize("arguments", [("nonsense",), ("show",), ("list", "--nonsense"), ("bench", "--clients", "0")])
def test_misuse_is_exit_code_2_and_one_line(slmops: Slmops, arguments: tuple[str, ...]) -> None:
    run = slmops(*arguments)
    assert run.code == 2
    assert run.err.startswith("error: ")
    assert run.err.count("\n") == 1


def test_settings_error_names_variable_and_is_misuse(slmops: Slmops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMOPS_NUM_SLOTS", "-3")
    run = slmops("config")
    assert run.code == 2
    assert "SLMOPS_NUM_SLOTS" in run.err


def test_config_shows_origin_of_each_value_and_hides_the_key(slmops: Slmops, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("slmops.toml").write_text('threads = 3\n[models."a:1"]\nkeep_alive = "1m"\n')
    monkeypatch.setenv("SLMOPS_API_KEY", "hush-hush")
    run = slmops("config", "--json")
    shown = json.loads(run.out)
    assert shown["threads"]["value"] == 3
    assert shown["threads"]["origin"].endswith("slmops.toml")
    assert shown["port"] == {"value": 1, "origin": "SLMOPS_PORT"}
    assert shown["num_slots"]["origin"] == "default"
    assert shown["models"]["value"] == {"a:1": {"keep_alive": 60.0}}
    assert shown["api_key"]["origin"] == "SLMOPS_API_KEY"
    assert "hush-hush" not in run.out + slmops("config").out


@pytest.mark.api
@pytest.mark.parametrize("command", [("ps",), ("load", "m"), ("reload", "m"), ("stop", "m"), ("reset", "m"), ("bench",)])
def test_commands_on_a_daemon_say_that_none_runs(slmops: Slmops, command: tuple[str, ...]) -> None:
    run = slmops(*command)
    assert run.code == 1
    assert "slmops serve" in run.err


def test_unexpected_error_is_a_line_and_no_traceback(slmops: Slmops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.cli.models.settings_from", lambda: 1 / 0)
    run = slmops("list")
    assert run.code == 1
    assert "ZeroDivisionError" in run.err
    assert "SLMOPS_TRACEBACK=1" in run.err
    assert run.err.count("\n") == 1


def test_interruption_is_130_and_silent(slmops: Slmops, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("server.cli.models.settings_from", interrupted)
    run = slmops("list")
    assert (run.code, run.out, run.err) == (130, "", "")


def test_endings() -> None:
    assert ending(CommandFailed("no", 2)).exit_code == 2
    assert "Is a directory: /x" in ending(IsADirectoryError(21, "Is a directory", "/x")).message
    assert ending(BrokenPipeError()).message == ""


@pytest.mark.api
def test_version_is_a_process_of_its_own_that_imports_little() -> None:
    script = "import sys; from server.cli import main; sys.argv = ['slmops', 'version']\n"
    script += "try: main()\nexcept SystemExit as end: assert end.code == 0\n"
    script += "heavy = {'fastapi', 'sqlalchemy', 'onnxruntime', 'numpy', 'httpx', 'uvicorn'} & set(sys.modules)\n"
    script += "print(sorted(heavy))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, second = run.stdout.splitlines()
    assert first.startswith("slmops ")
    assert second == "[]"


def test_version_json_names_the_libraries(slmops: Slmops) -> None:
    assert {"slmops", "python", "platform", "onnxruntime"} <= set(json.loads(slmops("version", "--json").out))


@pytest.mark.api
def test_main_exits_with_the_code_of_the_command(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["slmops", "show", "absent"])
    with pytest.raises(SystemExit) as end:
        program.main()
    assert end.value.code == 1


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (1536, "1.5 kB"), (5 << 30, "5.0 GB")])
def test_sizes(value: int, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(("value", "text"), [(-1, "0 s"), (59, "59 s"), (150, "2 min"), (7200, "2 h"), (90_000, "1 d")])
def test_spans(value: float, text: str) -> None:
    assert span(value) == text


def test_outline_leaves_out_what_is_empty_and_indents_lists() -> None:
    values = {"a": 1, "none": None, "empty": {}, "size_bytes": 2048, "list": [{"x": 1, "sha256": "f" * 64}]}
    assert list(outline(values)) == ["a: 1", "size_bytes: 2.0 kB", "list:", "  - x: 1", f"    sha256: {'f' * 16}"]
