"""What others wrote never moves the terminal's cursor: names, messages, answers, logs."""

from __future__ import annotations

import json

import pytest

from server.cli.terminal import print_error, print_json, print_line, print_note, print_table, write_foreign

HOSTILE = "a\x1b]0;owned\x07\x9b2J\u202eb"


def test_nothing_that_is_printed_holds_control_codes(capsys: pytest.CaptureFixture[str]) -> None:
    print_line(HOSTILE)
    print_note(HOSTILE)
    print_error(HOSTILE)
    print_table(["name"], [[HOSTILE]])
    print_json({"name": HOSTILE})
    printed = "".join(capsys.readouterr())
    assert printed.replace("\n", "").isprintable()
    assert printed.count("owned") == 5


def test_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": HOSTILE})
    assert json.loads(capsys.readouterr().out) == {"name": HOSTILE}


@pytest.mark.parametrize(("is_terminal", "shown"), [(True, "\\x1b[1mbold\n50%\n100%\n"), (False, "\x1b[1mbold\r\n50%\r100%\n")])
def test_foreign_text_is_written_as_it_is_but_on_a_terminal(
    is_terminal: bool, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    write_foreign("\x1b[1mbold\r\n50%\r100%\n")
    assert capsys.readouterr().out == shown
