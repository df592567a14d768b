"""The chat: its memory with a scripted daemon, and its keys in a real pseudo-terminal with a real one."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from server.cli.chat_session import ChatSession
from server.cli.conversation import Conversation
from server.cli.daemon import AnswerPiece, Daemon
from server.cli.failures import CommandFailed
from tests.doubles.daemon_process import PROGRAM, environment

pytestmark = pytest.mark.api


class ScriptedDaemon(Daemon):
    """Records its requests; answers with the scripted pieces, and raises those that are exceptions."""

    def __init__(self, *script: str | AnswerPiece | BaseException) -> None:
        super().__init__("http://127.0.0.1:1")
        self.script = script
        self.options: list[dict[str, Any]] = []
        self.requested: list[list[Mapping[str, str]]] = []

    def stream_chat(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, Any]) -> Generator[AnswerPiece]:
        self.requested.append(list(messages))
        self.options.append(dict(options))
        for piece in self.script:
            if isinstance(piece, BaseException):
                raise piece
            yield AnswerPiece(piece) if isinstance(piece, str) else piece


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str | BaseException) -> None:
    script = iter([*lines, EOFError()])

    def typed(prompt: str) -> str:
        line = next(script)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", typed)


def find_model(name: str) -> str:
    if name.startswith("absent"):
        raise CommandFailed(f"model {name!r} not found")
    return name.lower()


def chat(conversation: Conversation, history: Path | None = None) -> None:
    ChatSession(conversation, find_model).run(history)


def roles(messages: Sequence[Mapping[str, str]]) -> list[str]:
    return [message["role"] for message in messages]


def test_chat_sends_the_conversation_so_far(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = ScriptedDaemon("fi", "ne")
    type_in(monkeypatch, "one", "", "two")
    chat(Conversation(daemon, {}, system="be brief"))
    assert roles(daemon.requested[1]) == ["system", "user", "assistant", "user"]
    assert daemon.requested[1][2]["content"] == "fine"
    assert capsys.readouterr().out.count("fine\n") == 2


def test_clear_forgets_all_but_the_system_message(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = ScriptedDaemon("fine")
    type_in(monkeypatch, "one", "/clear", "two", "/bye", "never sent")
    chat(Conversation(daemon, {}, system="be brief"))
    assert [roles(requested) for requested in daemon.requested] == [["system", "user"], ["system", "user"]]


def test_failed_and_interrupted_answers_are_forgotten_and_the_chat_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = ScriptedDaemon("par", CommandFailed("the engine stopped; send it again"))
    type_in(monkeypatch, "one", KeyboardInterrupt(), "two", "three")
    conversation = Conversation(daemon, {})
    chat(conversation)
    assert [roles(requested) for requested in daemon.requested] == [["user"]] * 3
    printed = capsys.readouterr()
    assert printed.err.count("the engine stopped; send it again") == 3
    assert "par\n" in printed.out

    daemon.script = ("par", KeyboardInterrupt())
    type_in(monkeypatch, "four")
    chat(conversation)
    assert conversation.messages == []
    assert "stopped." in capsys.readouterr().err


def test_help_and_unknown_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = ScriptedDaemon("fine")
    type_in(monkeypatch, "/help", "/?", "/nonsense now", "/claer")
    chat(Conversation(daemon, {}))
    printed = capsys.readouterr()
    assert printed.out.count("/clear") == 2
    assert "/nonsense is not a command" in printed.err
    assert "did you mean /clear" in printed.err
    assert daemon.requested == []


def test_parameters_have_both_names_and_the_bounds_of_the_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = ScriptedDaemon("fine")
    type_in(
        monkeypatch,
        "/set parameter temperature 0.2",
        "/set parameter num_predict 20",
        "/set parameter seed 7",
        "/set parameter seed",
        '/set parameter stop "the end" END',
        "/set parameter temperature 9",
        "/set parameter top_p much",
        "/set parameter temprature 1",
        "/set parameter num_ctx 4096",
        "/set nonsense",
        "/set parameter",
        "one",
    )
    chat(Conversation(daemon, {"model": "m"}))
    assert daemon.options == [{"model": "m", "temperature": 0.2, "max_tokens": 20, "stop": ["the end", "END"]}]
    errors = capsys.readouterr().err
    assert errors.count("error: ") == 6
    assert "Did you mean temperature?" in errors
    assert "--context-length" in errors


def test_the_system_message_changes_from_the_next_answer_on(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = ScriptedDaemon("fine")
    type_in(monkeypatch, "one", "/system Be brief.", "two", '/set system """Be', 'long."""', "three", "/system", "four")
    chat(Conversation(daemon, {}))
    assert [roles(messages)[0] for messages in daemon.requested] == ["user", "system", "system", "user"]
    assert [daemon.requested[number][0]["content"] for number in (1, 2)] == ["Be brief.", "Be\nlong."]
    assert len(daemon.requested[3]) == 7


def test_another_model_begins_a_new_conversation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = ScriptedDaemon("fine")
    type_in(monkeypatch, "one", "/load absent", "two", "/load Other", "three", "/show", "/load")
    chat(Conversation(daemon, {"model": "m"}, system="be brief"))
    assert [options["model"] for options in daemon.options] == ["m", "m", "other"]
    assert [len(messages) for messages in daemon.requested] == [2, 4, 2]
    printed = capsys.readouterr()
    assert "'absent' not found" in printed.err
    assert "other" in printed.out
    assert "be brief" in printed.out


def test_messages_of_several_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = ScriptedDaemon("fine")
    type_in(monkeypatch, '"""one', "", '/bye"""', '"""whole"""', 'print("""x""")', '"""', "dropped", KeyboardInterrupt(), "last")
    chat(Conversation(daemon, {}))
    sent = [messages[-1]["content"] for messages in daemon.requested]
    assert sent == ["one\n\n/bye", "whole", 'print("""x""")', "last"]


def test_reasoning_is_not_part_of_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    daemon = ScriptedDaemon(AnswerPiece("hmm", is_reasoning=True), "fine")
    conversation = Conversation(daemon, {})
    assert conversation.send("one") == "fine"
    assert conversation.messages[-1]["content"] == "fine"
    assert capsys.readouterr().out == "fine\n"


def test_a_history_is_kept_only_in_a_given_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    type_in(monkeypatch, "one")
    chat(Conversation(ScriptedDaemon("fine"), {}))
    assert list(tmp_path.iterdir()) == []
    type_in(monkeypatch, "one")
    chat(Conversation(ScriptedDaemon("fine"), {}), tmp_path / "history")
    assert (tmp_path / "history").stat().st_mode & 0o777 == 0o600
    with pytest.raises(CommandFailed, match="history"):
        chat(Conversation(ScriptedDaemon("fine"), {}), tmp_path / "absent" / "history")


COLUMNS = 40
PATIENCE_S = 40


class Terminal:
    """A program on a pseudo-terminal of its own, whose screen can be waited for."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], folder: Path) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            command, cwd=folder, env=dict(variables), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.screen = b""
        self._seen = 0

    def expect(self, text: str) -> None:
        """Reads until `text` appears after what was expected before; the screen is the error when nothing more comes."""
        while (place := self.screen.find(text.encode(), self._seen)) < 0:
            assert select.select([self._ours], [], [], PATIENCE_S)[0], f"no {text!r} in {self.screen[self._seen :]!r}"
            self.screen += os.read(self._ours, 4096)
        self._seen = place + len(text.encode())

    def send(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.mark.timeout(150)
def test_keys_of_a_chat_in_a_terminal(tmp_path: Path) -> None:
    variables = environment(tmp_path, {"SLMOPS_PORT": "1", "SLMOPS_ENGINE": "fake", "TERM": "xterm"})
    variables = {
        name: value for name, value in variables.items() if name not in ("COLUMNS", "LINES")
    }  # those of the tests' own terminal
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
        terminal.send("[[reply: Some words that are far too many for a line]]\n")
        terminal.expect("Some words that are far too many for a\r\nline\r\n")
        terminal.expect(">>> ")
        terminal.send("/set parameter temperature 0.5\n")
        terminal.expect("temperature is 0.5.")
        terminal.expect(">>> ")
        terminal.send("\x04")  # ctrl-D
        assert terminal.process.wait(20) == 0
    finally:
        terminal.close()
