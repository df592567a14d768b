"""Tokens to text: characters come out whole, whatever the tokens' borders."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.text.stream import TextStream


def pieces_of(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]]


@given(st.text(max_size=30), st.lists(st.integers(0, 5), max_size=30))
def test_any_split_of_a_text_gives_the_text(text: str, sizes: list[int]) -> None:
    pieces = pieces_of(text.encode(), sizes)
    stream = TextStream(pieces.__getitem__)
    shown = [stream.feed(token) for token in range(len(pieces))]
    assert "".join(shown) == text
    assert stream.flush() == ""
    assert text.startswith(shown[0])


@given(st.binary(max_size=30), st.lists(st.integers(0, 5), max_size=30))
def test_bytes_that_are_no_text_become_replacement_characters(data: bytes, sizes: list[int]) -> None:
    pieces = pieces_of(data, sizes)
    stream = TextStream(pieces.__getitem__)
    shown = "".join(stream.feed(token) for token in range(len(pieces))) + stream.flush()
    assert shown == data.decode(errors="replace")


def test_half_a_character_is_held_back() -> None:
    euro = "€".encode()
    stream = TextStream([euro[:1], euro[1:2], euro[2:]].__getitem__)
    assert [stream.feed(0), stream.feed(1), stream.feed(2)] == ["", "", "€"]


def test_an_unfinished_character_at_the_end_is_not_lost() -> None:
    stream = TextStream([b"a\xe2\x82"].__getitem__)
    assert stream.feed(0) == "a"
    assert stream.flush() == "\ufffd"
