"""What others wrote never moves the terminal's cursor: names, messages, answers, logs."""

from __future__ import annotations

import json

import pytest

from server.cli.terminal import fitting, print_error, print_json, print_line, print_note, print_table, tokens, write_foreign

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


WIDTHS = {"MODEL": 20, "SIZE": 8, "LICENCE": 10, "CREATED": 16}
LEAST = ("LICENCE", "CREATED")


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (60, ["MODEL", "SIZE", "LICENCE", "CREATED"]),
        (59, ["MODEL", "SIZE", "CREATED"]),
        (48, ["MODEL", "SIZE", "CREATED"]),
        (47, ["MODEL", "SIZE"]),
        (10, ["MODEL", "SIZE"]),
    ],
)
def test_a_narrow_terminal_leaves_columns_out(room: int, shown: list[str]) -> None:
    assert fitting(WIDTHS, LEAST, room) == shown


def test_a_pipe_gets_all_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("MODEL", "LICENCE"), [("x" * 200, "y" * 200)], least=("LICENCE",), wide=True)
    out, err = capsys.readouterr()
    assert f"{'x' * 200}  {'y' * 200}" in out
    assert err == ""


@pytest.mark.parametrize(("value", "text"), [(512, "512"), (8192, "8k"), (131_072, "128k"), (1000, "1000")])
def test_numbers_of_tokens(value: int, text: str) -> None:
    assert tokens(value) == text
