"""A conversation in the terminal: the messages so far, what every request has, and an answer as it streams.

Knows the daemon's client; knows nothing of how the daemon was found or started, and no commands of a chat.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from server.cli.answer_printer import AnswerPrinter
from server.cli.daemon import Daemon


class Conversation:
    """Messages with one daemon. options: fields of every request (model, temperature, ...). system: None for no system message."""

    def __init__(self, daemon: Daemon, options: Mapping[str, Any], system: str | None = None) -> None:
        self._daemon = daemon
        self._exchanged: list[dict[str, str]] = []
        self.options = dict(options)
        self.system = system

    @property
    def messages(self) -> list[dict[str, str]]:
        """What the next request begins with."""
        opening = [{"role": "system", "content": self.system}] if self.system else []
        return [*opening, *self._exchanged]

    def clear(self) -> None:
        """Forgets all but the system message and the options."""
        self._exchanged = []

    def send(self, question: str) -> str:
        """Streams the answer to standard output and remembers both. An interrupted or failed exchange is forgotten."""
        asked = {"role": "user", "content": question}
        pieces: list[str] = []
        printer = AnswerPrinter()
        with closing(self._daemon.stream_chat([*self.messages, asked], self.options)) as stream:
            try:
                for piece in stream:
                    printer.print(piece)
                    if not piece.is_reasoning:
                        pieces.append(piece.text)
            finally:
                printer.close()
        answer = "".join(pieces)
        self._exchanged += [asked, {"role": "assistant", "content": answer}]
        return answer
