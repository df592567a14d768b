"""Which answers a student learns, and which layers it keeps: pure rules on small examples."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.tasks.distil.cutting import chosen
from jobs.tasks.distil.parameters import METRICS, PRESETS, DistilParams, Filters
from jobs.tasks.distil.teaching import gist, is_sound, kept, without_near_duplicates
from jobs.tasks.evaluate.questions import Answered

pytestmark = pytest.mark.unit


def answers(*texts: str) -> list[Answered]:
    return [Answered(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "filters", "sound"),
    [
        ("", {}, False),
        ("  ", {"min_chars": 0}, False),
        ("abc", {"min_chars": 4}, False),
        ("abcd", {"min_chars": 4, "max_chars": 4}, True),
        ("abcde", {"max_chars": 4}, False),
        ("no digit", {"pattern": r"\d"}, False),
        ("digit 1", {"pattern": r"\d"}, True),
        ('{"a": 1}', {"is_json": True}, True),
        ("{a: 1}", {"is_json": True}, False),
    ],
)
def test_length_and_form(text: str, filters: dict[str, Any], sound: bool) -> None:
    assert is_sound(Answered(text), Filters(**filters)) is sound


def test_calls_are_sound_when_their_arguments_are() -> None:
    assert is_sound(Answered("", (("f", {"a": 1}),)), Filters(min_chars=50))
    assert not is_sound(Answered("", (("f", None),)), Filters())


def test_equal_samples_count_once_and_most_must_agree() -> None:
    assert kept(answers("a", "a ", "b"), Filters()) == [0, 2]
    votes = answers("So 4.", "It is 5", "2 + 2 = 4")
    assert kept(votes, Filters(agreement=0.5)) == [0, 2]
    assert kept(votes, Filters(agreement=0.9)) == []
    assert kept(answers("", ""), Filters(agreement=0.5)) == []


def test_a_gist_is_the_last_number_or_the_words() -> None:
    assert gist("first 3, then 1,200.") == "1200"
    assert gist("The Cat!") == gist("cat")


def test_near_duplicates_are_found_by_their_words() -> None:
    base = "the quick brown fox jumps over the lazy dog near the river bank today"
    other = "completely different words stand in this sentence about ships and harbours"
    assert without_near_duplicates([base, base + " again", other], 0.7) == [0, 2]
    assert without_near_duplicates([base, other, "x"], 0.7) == [0, 1, 2]


def test_the_layers_that_change_most_stay_with_first_and_last() -> None:
    assert chosen([0.0, 5.0, 1.0, 3.0, 0.0], 4) == [0, 1, 3, 4]
    assert chosen([9.0, 5.0, 1.0], 2) == [0, 2]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_sound(preset: str) -> None:
    params = DistilParams(teacher="a", student="b", data="c", preset=preset)  # type: ignore[arg-type]
    assert params.num_samples >= 1
    assert params.chosen_filters
    assert METRICS[preset]
