"""An answer at a terminal and elsewhere: where its lines break, how reasoning looks, and what other programs get."""

from __future__ import annotations

import io

import pytest

from server.cli.answer_printer import AnswerPrinter
from server.cli.daemon import AnswerPiece

PIECES = (
    AnswerPiece("First I think", is_reasoning=True),
    AnswerPiece(" about it.", is_reasoning=True),
    AnswerPiece("Then I answer in"),
    AnswerPiece(" words\x1b[31m."),
)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(monkeypatch: pytest.MonkeyPatch, stdout: io.StringIO, *pieces: AnswerPiece) -> str:
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm")
    printer = AnswerPrinter()
    for piece in pieces:
        printer.print(piece)
    printer.close()
    return stdout.getvalue()


def test_a_terminal_shows_reasoning_dim_and_breaks_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert printed(monkeypatch, Screen(), *PIECES) == (
        "\x1b[2mThinking...\nFirst I think about\nit.\n...done thinking.\n\n\x1b[22mThen I answer in\nwords\\x1b[31m.\n"
    )


def test_without_colours_no_code_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in printed(monkeypatch, Screen(), *PIECES)


def test_an_answer_that_ends_while_reasoning_leaves_the_terminal_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert printed(monkeypatch, Screen(), PIECES[0]).endswith("...done thinking.\n\n\x1b[22m")


def test_other_programs_get_the_answer_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch, io.StringIO(), *PIECES) == "Then I answer in words\x1b[31m.\n"
    assert printed(monkeypatch, io.StringIO()) == ""
