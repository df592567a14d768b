"""A conversation in the terminal: the messages so far, an answer as it streams, and the commands of a chat.

Knows the daemon's client; knows nothing of how the daemon was found or started.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from server.cli.daemon import Daemon
from server.cli.failures import CommandFailed
from server.cli.terminal import print_error, print_line, print_note, write_foreign

_HELP = """/help   this text
/clear  forget the conversation
/bye    end (so does ctrl-D)
ctrl-C  stops an answer; the chat continues"""


class Conversation:
    """Messages with one daemon. options: fields of every request (model, temperature, ...)."""

    def __init__(self, daemon: Daemon, options: Mapping[str, Any], system: str | None = None) -> None:
        self._daemon = daemon
        self._options = options
        self._opening = [{"role": "system", "content": system}] if system else []
        self.messages: list[dict[str, str]] = list(self._opening)

    def clear(self) -> None:
        self.messages = list(self._opening)

    def send(self, question: str) -> str:
        """Streams the answer to standard output and remembers both. An interrupted or failed exchange is forgotten."""
        messages = [*self.messages, {"role": "user", "content": question}]
        pieces: list[str] = []
        with closing(self._daemon.stream_chat(messages, self._options)) as stream:
            try:
                for piece in stream:
                    pieces.append(piece)
                    write_foreign(piece)
            finally:
                if pieces and not pieces[-1].endswith("\n"):
                    print_line("")
        answer = "".join(pieces)
        self.messages = [*messages, {"role": "assistant", "content": answer}]
        return answer

    def chat(self) -> None:
        """Reads questions until /bye or the end of input. A failed answer is reported, and the chat continues."""
        _enable_line_editing()
        print_note("/help lists the commands; ctrl-D ends.")
        while (line := _read_line()) is not None:
            match line.strip():
                case "":
                    continue
                case "/bye":
                    return
                case "/help":
                    print_line(_HELP)
                case "/clear":
                    self.clear()
                    print_note("the conversation is forgotten.")
                case command if command.startswith("/"):
                    print_error(f"{command.split()[0]} is not a command; /help lists them")
                case question:
                    self._send_or_report(question)

    def _send_or_report(self, question: str) -> None:
        try:
            self.send(question)
        except KeyboardInterrupt:
            print_note("stopped.")
        except CommandFailed as error:
            print_error(error.message)


def _enable_line_editing() -> None:
    """Arrow keys and history for `input`, where the system has readline."""
    try:
        import readline  # noqa: F401 - importing it is what changes input()
    except ImportError:
        return


def _read_line() -> str | None:
    """The next line; None at the end of input. ctrl-C at the prompt drops the line."""
    while True:
        try:
            return input(">>> ")
        except EOFError:
            print_line("")
            return None
        except KeyboardInterrupt:
            print_line("")
            print_note("ctrl-D or /bye ends the chat.")
