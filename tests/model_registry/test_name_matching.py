"""Which known name a typed text means, and which it may have meant."""

from __future__ import annotations

import pytest

from model_registry.catalog import load_catalog
from model_registry.name_matching import did_you_mean, nearest_names, same_label, same_name
from model_registry.snapshot import why_not_found

KNOWN = ("smollm2-135m", "smollm2-360m", "qwen3-0.6b", "tiny")


@pytest.mark.parametrize(
    ("text", "found"),
    [("tiny", "tiny"), ("TINY", "tiny"), ("SmolLM2-135M", "smollm2-135m"), ("smollm2", None), ("", None), ("gpt-4o", None)],
)
def test_case_is_ignored_and_nothing_else(text: str, found: str | None) -> None:
    assert same_name(text, KNOWN) == found


def test_two_names_that_differ_in_case_are_not_guessed() -> None:
    assert same_name("TINY", ("tiny", "Tiny")) is None
    assert same_name("Tiny", ("tiny", "Tiny")) == "Tiny"


@pytest.mark.parametrize(
    ("text", "label"), [("Tiny:2", "tiny:2"), ("TINY:Live", "tiny:live"), ("absent:2", "absent:2"), (" tiny ", "tiny")]
)
def test_the_model_of_a_label_is_found(text: str, label: str) -> None:
    assert same_label(text, KNOWN) == label


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("smolm2-135m", ["smollm2-135m", "smollm2-360m"]),
        ("smollm2", ["smollm2-135m", "smollm2-360m"]),
        ("Qwen3", ["qwen3-0.6b"]),
        ("Org/Tinny:3", ["tiny"]),
        ("gpt-4o", []),
        ("", []),
        ("x" * 100_000, []),
    ],
)
def test_what_resembles_a_text(text: str, names: list[str]) -> None:
    assert nearest_names(text, KNOWN)[: len(names) or 1] == names


def test_the_question_names_what_resembles() -> None:
    assert did_you_mean("tinny", KNOWN) == " Did you mean tiny?"
    assert did_you_mean("smollm2", KNOWN) == " Did you mean smollm2-135m or smollm2-360m?"
    assert did_you_mean("gpt-4o", KNOWN) == ""


def test_a_missing_model_is_pulled_only_where_the_catalog_has_it() -> None:
    default = load_catalog().default.name
    assert f"slmops pull {default}`" in why_not_found(default.upper(), ["tiny"])
    for name in ("gpt-4o", "smolm2-135m", "tinny", "../x"):
        assert "slmops pull" not in why_not_found(name, ["tiny"]), name
    assert "Installed: none." in why_not_found("gpt-4o", [])
    assert "and 30 more" in why_not_found("gpt-4o", [f"model-{number}" for number in range(50)])
