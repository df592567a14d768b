"""Training data: every form that is read, and everything that is refused, with its line and without its text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.datasets.examples import Completion, Conversation, Preference
from jobs.datasets.reading import Data, blame_leaks, columns_of, read_data

USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "hello"}
CALL = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


def read(tmp_path: Path, *rows: Any, **how: Any) -> Data:
    path = tmp_path / "data.jsonl"
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines))
    return read_data(path, **how)


def test_conversations_pairs_and_templates_are_read(tmp_path: Path) -> None:
    called = {"messages": [USER, CALL], "tools": TOOLS}
    data = read(tmp_path, {"messages": [USER, ANSWER]}, b"", called, {"prompt": "a", "completion": "b"})
    assert not data.problems
    assert [type(each) for each in data.examples] == [Conversation, Conversation, Completion]
    assert [each.line for each in data.examples] == [1, 3, 4]
    (text,) = read(tmp_path, {"q": "1+1?", "a": 2}, text_template="{q} = {a}{{}}").examples
    assert text == Completion(1, "", "1+1? = 2{}")
    assert list(columns_of("{a} {b}")) == ["a", "b"]


def test_both_forms_of_preferences_mean_the_same(tmp_path: Path) -> None:
    ours = {"prompt": "hi", "chosen": "hello", "rejected": "go"}
    theirs = {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [{**ANSWER, "content": "go"}]}
    (one,) = read(tmp_path, ours, objective="dpo").examples
    (two,) = read(tmp_path, theirs, objective="dpo").examples
    assert one == two == Preference(1, [USER], "hello", "go")


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (b"{not json", "not_json"),
        (b'{"prompt": "\xff", "completion": "b"}', "not_utf8"),
        ([1], "not_an_object"),
        ({}, "unknown_form"),
        ({"messages": []}, "empty"),
        ({"messages": "hi"}, "empty"),
        ({"messages": [USER]}, "no_assistant_turn"),
        ({"messages": [ANSWER]}, "wrong_roles"),
        ({"messages": [USER, USER, ANSWER]}, "wrong_roles"),
        ({"messages": [USER, ANSWER, USER]}, "wrong_roles"),
        ({"messages": [USER, {"role": "system", "content": "s"}, ANSWER]}, "wrong_roles"),
        ({"messages": [USER, {"role": "tool", "content": "s"}, ANSWER]}, "wrong_roles"),
        ({"messages": [{"role": "wizard", "content": "x"}, ANSWER]}, "wrong_roles"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "empty"),
        ({"messages": [USER, {"role": "assistant", "content": ["x"]}]}, "wrong_content"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [{}]}]}, "wrong_tools"),
        ({"messages": [USER, ANSWER], "tools": ["f"]}, "wrong_tools"),
        ({"messages": [USER, ANSWER], "weight": 2}, "unknown_field"),
        ({"prompt": "a", "completion": ""}, "empty"),
        ({"prompt": 3, "completion": "a"}, "empty"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_without_its_text(tmp_path: Path, row: Any, code: str) -> None:
    data = read(tmp_path, {"prompt": "good", "completion": "better"}, row)
    (problem,) = data.problems
    assert (problem.line, problem.code, problem.file) == (2, code, str(tmp_path / "data.jsonl"))
    assert "hello" not in problem.message


def test_duplicates_leaks_and_empty_files(tmp_path: Path) -> None:
    row = {"prompt": "a", "completion": "b"}
    training = read(tmp_path, row, {"completion": "b", "prompt": "a"}, {"prompt": "a", "completion": "c"})
    assert [(each.line, each.code) for each in training.problems] == [(2, "duplicate")]
    validation = read(tmp_path, {"prompt": "z", "completion": "c"}, row)
    blame_leaks(training, validation)
    assert [(each.line, each.code) for each in validation.problems] == [(2, "leaked")]
    assert read(tmp_path, b"").problems[0].code == "empty_file"
    assert read_data(tmp_path / "none.jsonl").problems[0].code == "file_not_found"


def test_a_file_of_nothing_but_mistakes_is_counted_whole_and_shown_in_part(tmp_path: Path) -> None:
    data = read(tmp_path, *[b"x"] * 1500)
    assert (data.num_problems, len(data.problems)) == (1500, 1000)


def test_the_preference_between_equals_is_none(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "b"}, objective="dpo").problems
    assert problem.code == "no_preference"
    (problem,) = read(tmp_path, {"q": 1}, text_template="{p}").problems
    assert problem.code == "missing_column"
