"""A model that is not installed: the question at a terminal, --yes, and the command to run elsewhere."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from server.cli import missing_model
from server.cli.failures import CommandFailed
from server.cli.missing_model import ensure_installed
from server.cli.model_names import ModelNames
from server.settings.daemon import Settings

if TYPE_CHECKING:
    from tests.cli.conftest import Slmops

NAMES = ModelNames(("mine", "mine:support"), ("smollm2-135m", "smollm2-360m"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    references: list[str] = []

    def pull(reference: str, _settings: Settings) -> str:
        references.append(reference)
        return reference.partition(":")[0]

    monkeypatch.setattr(missing_model, "_pull", pull)
    return references


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Terminal]:
    def sit(answer: str) -> Terminal:
        screen = Terminal()
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        monkeypatch.setattr("sys.stderr", screen)
        return screen

    return sit


def ensure(model: str, home: Path, *, yes: bool = False, **changes: Any) -> str:
    return ensure_installed(model, NAMES, Settings(home=home, **changes), assume_yes=yes)


@pytest.mark.parametrize("name", ["mine", "mine:support", "mine:7"])
def test_installed_models_are_not_pulled(home: Path, pulled: list[str], name: str) -> None:
    assert ensure(name, home) == name
    assert ensure(name.upper(), home) == name
    assert pulled == []


@pytest.mark.parametrize("answer", ["\n", "y\n", "Yes\n"])
def test_yes_pulls(home: Path, pulled: list[str], at_terminal: Callable[[str], Terminal], answer: str) -> None:
    screen = at_terminal(answer)
    assert ensure("SmolLM2-360M", home) == "smollm2-360m"
    assert pulled == ["smollm2-360m"]
    assert "Pull" in screen.getvalue()
    assert "MB" in screen.getvalue()


@pytest.mark.parametrize("answer", ["n\n", "no\n", "what\n", "q\n"])
def test_anything_else_does_not(home: Path, pulled: list[str], at_terminal: Callable[[str], Terminal], answer: str) -> None:
    at_terminal(answer)
    with pytest.raises(CommandFailed, match="slmops pull smollm2-360m"):
        ensure("smollm2-360m", home)
    assert pulled == []


def test_the_end_of_input_is_no_answer(home: Path, pulled: list[str], at_terminal: Callable[[str], Terminal]) -> None:
    at_terminal("")
    with pytest.raises(CommandFailed, match="slmops pull"):
        ensure("smollm2-360m", home)
    assert pulled == []


def test_the_option_answers_the_question(home: Path, pulled: list[str]) -> None:
    assert ensure("smollm2-360m", home, yes=True) == "smollm2-360m"
    assert ensure("hf://org/name", home, yes=True) == "hf"
    assert pulled == ["smollm2-360m", "hf://org/name"]


@pytest.mark.api
def test_away_from_a_terminal_the_command_is_named(slmops: Slmops) -> None:
    run = slmops("run", "smollm2-360m", "Hello")
    assert (run.code, run.err.count("\n")) == (1, 1)
    assert "slmops pull smollm2-360m" in run.err
    assert "--yes" in run.err


@pytest.mark.api
def test_the_default_model_is_no_exception(slmops: Slmops) -> None:
    run = slmops("run", "Hello")
    assert run.code == 1
    assert "slmops pull smollm2-135m" in run.err


@pytest.mark.parametrize("name", ["gpt-4o", "smollm2-135m:nonsense"])
def test_what_cannot_be_pulled_is_not_advised(home: Path, pulled: list[str], name: str) -> None:
    with pytest.raises(CommandFailed, match="Installed: mine") as refusal:
        ensure(name, home, yes=True)
    assert f"slmops pull {name}" not in refusal.value.message
    assert pulled == []


def test_offline_nothing_is_pulled(home: Path, pulled: list[str]) -> None:
    with pytest.raises(CommandFailed, match="offline"):
        ensure("smollm2-360m", home, yes=True, offline=True)
    assert pulled == []
