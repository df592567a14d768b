"""The chat: its memory with a scripted daemon, and its keys in a real pseudo-terminal with a real one."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from server.cli.conversation import Conversation
from server.cli.daemon import Daemon
from server.cli.failures import CommandFailed
from tests.doubles.daemon_process import PROGRAM, environment

pytestmark = pytest.mark.api


class ScriptedDaemon(Daemon):
    """Records its requests; answers with the scripted pieces, and raises those that are exceptions."""

    def __init__(self, *script: str | BaseException) -> None:
        super().__init__("http://127.0.0.1:1")
        self.script = script
        self.requested: list[list[Mapping[str, str]]] = []

    def stream_chat(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, Any]) -> Generator[str]:
        self.requested.append(list(messages))
        for piece in self.script:
            if isinstance(piece, BaseException):
                raise piece
            yield piece


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str | BaseException) -> None:
    script = iter([*lines, EOFError()])

    def typed(prompt: str) -> str:
        line = next(script)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", typed)


def roles(messages: Sequence[Mapping[str, str]]) -> list[str]:
    return [message["role"] for message in messages]


def test_chat_sends_the_conversation_so_far(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = ScriptedDaemon("fi", "ne")
    type_in(monkeypatch, "one", "", "two")
    Conversation(daemon, {}, system="be brief").chat()
    assert roles(daemon.requested[1]) == ["system", "user", "assistant", "user"]
    assert daemon.requested[1][2]["content"] == "fine"
    assert capsys.readouterr().out.count("fine\n") == 2


def test_clear_forgets_all_but_the_system_message(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = ScriptedDaemon("fine")
    type_in(monkeypatch, "one", "/clear", "two", "/bye", "never sent")
    Conversation(daemon, {}, system="be brief").chat()
    assert [roles(requested) for requested in daemon.requested] == [["system", "user"], ["system", "user"]]


def test_failed_and_interrupted_answers_are_forgotten_and_the_chat_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = ScriptedDaemon("par", CommandFailed("the engine stopped; send it again"))
    type_in(monkeypatch, "one", KeyboardInterrupt(), "two", "three")
    conversation = Conversation(daemon, {})
    conversation.chat()
    assert [roles(requested) for requested in daemon.requested] == [["user"]] * 3
    printed = capsys.readouterr()
    assert printed.err.count("the engine stopped; send it again") == 3
    assert "par\n" in printed.out

    daemon.script = ("par", KeyboardInterrupt())
    type_in(monkeypatch, "four")
    conversation.chat()
    assert conversation.messages == []
    assert "stopped." in capsys.readouterr().err


def test_help_and_unknown_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = ScriptedDaemon("fine")
    type_in(monkeypatch, "/help", "/nonsense now")
    Conversation(daemon, {}).chat()
    printed = capsys.readouterr()
    assert "/clear" in printed.out
    assert "/nonsense is not a command" in printed.err
    assert daemon.requested == []


class Terminal:
    """A program on a pseudo-terminal of its own, whose screen can be waited for."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], folder: Path) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command, cwd=folder, env=dict(variables), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.screen = b""
        self._seen = 0

    def expect(self, text: str) -> None:
        """Reads until `text` appears after what was expected before."""
        while (place := self.screen.find(text.encode(), self._seen)) < 0:
            self.screen += os.read(self._ours, 4096)
        self._seen = place + len(text.encode())

    def send(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.mark.timeout(60)
def test_keys_of_a_chat_in_a_terminal(tmp_path: Path) -> None:
    variables = environment(tmp_path, {"SLMOPS_PORT": "1", "SLMOPS_ENGINE": "fake", "TERM": "xterm"})
    terminal = Terminal([*PROGRAM, "run"], variables, tmp_path)
    try:
        terminal.expect(">>> ")
        terminal.send("Hello\n")
        terminal.expect("You said: Hello")
        terminal.expect(">>> ")
        terminal.send("[[endless]] [[delay: 0.005]]\n")
        terminal.expect("xxxxx")
        os.killpg(terminal.process.pid, signal.SIGINT)  # what ctrl-C does: to us and to our workers
        terminal.expect("stopped.")
        terminal.expect(">>> ")
        terminal.send("Again\n")
        terminal.expect("You said: Again")
        terminal.expect(">>> ")
        terminal.send("\x04")  # ctrl-D
        assert terminal.process.wait(20) == 0
    finally:
        terminal.close()
