"""Answers at a terminal: lines end between words, whatever pieces the text comes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from server.cli.word_wrap import WordWrap

TEXT = st.text(st.sampled_from("ab c\n漢é"), max_size=80)


def wrapped(text: str, width: int, piece: int = 1) -> str:
    wrap = WordWrap()
    pieces = [wrap.feed(text[start : start + piece], width) for start in range(0, len(text), piece)]
    return "".join(pieces) + wrap.finish(width)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two three four", ["one two", "three four"]),
        ("exactlyten next", ["exactlyten", "next"]),
        ("averyveryverylongword x", ["averyveryv", "erylongwor", "d x"]),
        ("a\nb", ["a", "b"]),
        ("  indented here", ["  indented", "here"]),
        ("漢字漢字漢字漢", ["漢字漢字漢", "字漢"]),
        ("ab 漢字漢字", ["ab 漢字漢", "字"]),
        ("a\tb cdef", ["a\tb", "cdef"]),
        ("```\nx = 1 + 2 + 3 + 4\n```\none two three", ["```", "x = 1 + 2 + 3 + 4", "```", "one two", "three"]),
    ],
)
def test_lines_end_between_words(text: str, lines: list[str]) -> None:
    assert wrapped(text, 10).split("\n") == lines


@given(TEXT, st.integers(1, 7), st.integers(2, 12))
def test_no_line_is_too_wide_nothing_is_lost_and_pieces_do_not_matter(text: str, piece: int, width: int) -> None:
    result = wrapped(text, width, piece)
    assert result == wrapped(text, width)
    assert "".join(result.split()) == "".join(text.split())
    for line in result.split("\n"):
        assert cell_len(line.strip(" ")) <= width


def test_a_finished_text_leaves_nothing_behind() -> None:
    wrap = WordWrap()
    assert wrap.feed("held", 10) == ""
    assert wrap.finish(10) == "held"
    assert wrap.finish(10) == ""
