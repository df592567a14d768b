"""Prints an answer as it streams: broken between words at a terminal, the reasoning dim; the bare answer for other programs."""

from __future__ import annotations

import os
import shutil
import sys

from server.cli.daemon import AnswerPiece
from server.cli.terminal import write_foreign
from server.cli.word_wrap import WordWrap

_DIM, _PLAIN = "\x1b[2m", "\x1b[22m"
_BEFORE_REASONING, _AFTER_REASONING = "Thinking...\n", "...done thinking.\n\n"


class AnswerPrinter:
    """For one answer. `close` must follow, however the answer ends."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._wrap = WordWrap()
        self._is_reasoning = False
        self._last = "\n"

    def print(self, piece: AnswerPiece) -> None:
        if piece.is_reasoning and not self._is_terminal:
            return
        if piece.is_reasoning != self._is_reasoning:
            self._turn(is_reasoning=piece.is_reasoning)
        self._write(self._wrap.feed(piece.text, _width()) if self._is_terminal else piece.text)

    def close(self) -> None:
        """Ends the line."""
        if self._is_reasoning:
            self._turn(is_reasoning=False)
        if self._is_terminal:
            self._write(self._wrap.finish(_width()))
        if self._last != "\n":
            self._write("\n")

    def _turn(self, *, is_reasoning: bool) -> None:
        self._write(self._wrap.finish(_width()))
        if self._last != "\n":
            self._write("\n")
        if is_reasoning:
            _set(_DIM)
            self._write(_BEFORE_REASONING)
        else:
            self._write(_AFTER_REASONING)
            _set(_PLAIN)
        self._is_reasoning = is_reasoning

    def _write(self, text: str) -> None:
        if text:
            self._last = text[-1]
            write_foreign(text)


def _width() -> int:
    return max(shutil.get_terminal_size().columns, 1)


def _set(code: str) -> None:
    if "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb":
        sys.stdout.write(code)
