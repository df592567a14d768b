"""What the words after `slmops run` mean, and what is sent of typed and piped text. Pure."""

from __future__ import annotations

import pytest

from server.cli.failures import MISUSED, CommandFailed
from server.cli.model_names import ModelNames
from server.cli.prompt_input import combine, decode, read_prompt
from server.cli.run_words import RunWords, prompt_of, read_words

NAMES = ModelNames(("smollm2-135m", "smollm2-135m:support", "mine", "ft:mine:local:a:0123abcd"), ("smollm2-135m", "qwen2.5-0.5b"))


@pytest.mark.parametrize(
    ("words", "model", "prompt"),
    [
        ((), None, None),
        (("smollm2-135m",), "smollm2-135m", None),
        (("SmolLM2-135M", "Hello"), "SmolLM2-135M", "Hello"),
        (("smollm2-135m:2", "Hello", "there"), "smollm2-135m:2", "Hello there"),
        (("mine:previous", "-"), "mine:previous", "-"),
        (("smollm2-135m:support", "My order"), "smollm2-135m:support", "My order"),
        (("ft:mine:local:a:0123abcd", "Hello"), "ft:mine:local:a:0123abcd", "Hello"),
        (("qwen2.5-0.5b:q4", "Hello"), "qwen2.5-0.5b:q4", "Hello"),  # in the catalogue, so it can be pulled
        (("hf://org/name", "Hello"), "hf://org/name", "Hello"),
        (("Org/Name",), "Org/Name", None),
        (("gpt-4o", "Hello"), "gpt-4o", "Hello"),  # looks like a model: found missing later, not sent as a prompt
        (("llama3.2:3b",), "llama3.2:3b", None),
        (("What is smollm2-135m?",), None, "What is smollm2-135m?"),
        (("Hello",), None, "Hello"),
        (("What", "is", "Rust?"), None, "What is Rust?"),
        (("2+2",), None, "2+2"),
        (("42",), None, "42"),
        (("-",), None, "-"),
        (("https://a.example/x",), None, "https://a.example/x"),
        (("",), None, ""),
    ],
)
def test_the_first_word_is_the_model_where_it_names_one(words: tuple[str, ...], model: str | None, prompt: str | None) -> None:
    assert read_words(words, NAMES) == RunWords(model, prompt)


@pytest.mark.parametrize("words", [("smollm",), ("smollm", "Hello"), ("Qwen",)])
def test_a_word_that_resembles_a_model_is_refused_rather_than_sent(words: tuple[str, ...]) -> None:
    with pytest.raises(CommandFailed, match="slmops run") as refusal:
        read_words(words, NAMES)
    assert refusal.value.exit_code == MISUSED


def test_with_the_option_every_word_is_prompt() -> None:
    assert prompt_of(["smollm2-135m", "is", "small"]) == "smollm2-135m is small"
    assert prompt_of([]) is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("MINE", "mine"),
        ("Mine:Previous", "mine:previous"),
        ("smollm2-135m:support", "smollm2-135m:support"),
        ("support", None),
        ("nobody:1", None),
    ],
)
def test_installed_labels_ignore_case(text: str, label: str | None) -> None:
    assert NAMES.installed_label(text) == label


@pytest.mark.parametrize(
    ("typed", "piped", "prompt"),
    [
        ("Summarise:", "a\nb\n", "Summarise:\n\na\nb\n"),
        ("Hello", "", "Hello"),
        ("Hello", " \n", "Hello"),
        (None, "piped", "piped"),
        ("", "piped", "piped"),
    ],
)
def test_piped_text_is_appended_after_a_blank_line(typed: str | None, piped: str, prompt: str) -> None:
    assert combine(typed, piped) == prompt


def test_piped_bytes_must_be_text() -> None:
    assert decode("\ufeffäöü 漢".encode()) == "äöü 漢"
    for content in (b"\x89PNG\r\n", "äöü".encode("latin-1"), b"a\0b"):
        with pytest.raises(CommandFailed) as refusal:
            decode(content)
        assert refusal.value.exit_code == MISUSED


def test_a_closed_standard_input_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert read_prompt("Hello") == "Hello"
    with pytest.raises(CommandFailed, match="empty"):
        read_prompt(None)
