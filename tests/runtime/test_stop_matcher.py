"""Stop strings: whatever the pieces, the same text comes out as from the whole text at once, and no part of a stop string leaks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.text.stream import Released, StopMatcher
from tests.effort import drawn

texts = st.text("ab\n", max_size=20)
stop_lists = st.lists(st.text("ab\n", max_size=4), max_size=4).map(tuple)
cuts = st.lists(st.integers(0, 20), max_size=8)


def naive(text: str, stops: tuple[str, ...], *, include: bool) -> tuple[str, str | None]:
    """On the whole text: the match that begins first, the longest of those."""
    for start in range(len(text)):
        matching = [stop for stop in stops if stop and text.startswith(stop, start)]
        if matching:
            stop = max(matching, key=len)
            return (text[: start + len(stop)] if include else text[:start]), stop
    return text, None


def split(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


def run(matcher: StopMatcher, pieces: list[str]) -> tuple[str, str | None, list[str]]:
    """The text, the match, and each piece as it was shown."""
    shown = []
    for piece in pieces:
        released = matcher.feed(piece)
        shown.append(released.text)
        if released.matched is not None:
            return "".join(shown), released.matched, shown
    last = matcher.flush()
    return "".join([*shown, last.text]), last.matched, shown


@drawn(400)
@given(texts, stop_lists, cuts, st.booleans())
def test_any_split_gives_what_the_whole_text_gives(text: str, stops: tuple[str, ...], places: list[int], include: bool) -> None:
    shown, matched, _ = run(StopMatcher(stops, include=include), split(text, places))
    assert (shown, matched) == naive(text, stops, include=include)


@drawn(200)
@given(texts, stop_lists)
def test_no_part_of_a_stop_string_is_shown_before_its_fate_is_known(text: str, stops: tuple[str, ...]) -> None:
    matcher, shown = StopMatcher(stops), ""
    for i, character in enumerate(text):
        released = matcher.feed(character)
        shown += released.text
        fed = text[: i + 1]
        assert fed.startswith(shown)
        if released.matched is not None:
            return
        waits = [fed[at:] for at in range(len(fed)) if any(stop.startswith(fed[at:]) for stop in stops)]
        assert shown == fed[: len(fed) - max(map(len, waits), default=0)]


def test_text_without_stop_strings_passes_at_once() -> None:
    matcher = StopMatcher(("", ""))
    assert matcher.feed("anything").text == "anything"
    assert matcher.flush().text == ""


@pytest.mark.parametrize(("include", "text"), [(False, "one "), (True, "one END")])
def test_the_stop_string_is_shown_only_if_requested(include: bool, text: str) -> None:
    matcher = StopMatcher(("END",), include=include)
    assert matcher.feed("one EN").text == "one "
    released = matcher.feed("D two")
    assert "one " + released.text == text
    assert released.matched == "END"


def test_a_shorter_stop_string_that_waited_for_a_longer_one_counts_at_the_end() -> None:
    matcher = StopMatcher(("ab", "abc"))
    assert matcher.feed("xab").text == "x"
    assert matcher.flush() == Released("", "ab")
