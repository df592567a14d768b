"""Training data: every form that is read, and everything that is refused, with its line and without its text."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from jobs.datasets.examples import Completion, Conversation, Preference, columns_of
from jobs.datasets.lines import MAX_LINE_BYTES
from jobs.datasets.reading import Data, read_data, stream

USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "hello"}
CALL = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


def read(tmp_path: Path, *rows: Any, **options: Any) -> Data:
    path = tmp_path / "data.jsonl"
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines))
    return read_data(path, **options)


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
def test_what_is_wrong_is_reported_with_its_line_and_without_its_text(tmp_path: Path, row: Any, code: str) -> None:
    data = read(tmp_path, {"prompt": "good", "completion": "better"}, row)
    (problem,) = data.problems
    assert (problem.line, problem.code, problem.file) == (2, code, str(tmp_path / "data.jsonl"))
    assert "hello" not in problem.message


def test_duplicates_and_leaks_are_left_out_and_reported(tmp_path: Path) -> None:
    row = {"prompt": "a", "completion": "b"}
    training = read(tmp_path, row, {"completion": "b", "prompt": "a"}, {"prompt": "a", "completion": "c"}, *[row] * 7)
    assert not training.problems
    assert [each.line for each in training.examples] == [1, 3]
    assert training.left_out() == ("data.jsonl: 8 lines (2, 4, 5, 6, 7, ...) left out as duplicates of earlier ones.",)
    (tmp_path / "new.jsonl").write_text("\n".join(json.dumps(each) for each in ({"prompt": "z", "completion": "c"}, row)))
    validation = Data(tmp_path / "new.jsonl")
    assert [each.line for each in stream(validation, learned=training.known)] == [1]
    assert validation.left_out() == (
        "new.jsonl: 1 line (2) left out, which are training data: validation must be new to the model.",
    )
    (tmp_path / "new.jsonl").write_text(json.dumps(row))
    nothing = Data(tmp_path / "new.jsonl")
    assert list(stream(nothing, learned=training.known)) == []
    assert [problem.code for problem in nothing.problems] == ["leaked"]


def test_no_examples_and_no_file(tmp_path: Path) -> None:
    assert read(tmp_path, b"").problems[0].code == "empty_file"
    assert read_data(tmp_path / "none.jsonl").problems[0].code == "file_not_found"


ROWS = "\n".join(json.dumps({"prompt": f"a{n} \u00e9 \u2019", "completion": "b"}, ensure_ascii=False) for n in range(12))


@pytest.mark.parametrize("text", [ROWS.encode(), b"\xef\xbb\xbf" + ROWS.encode(), ROWS.replace("\n", "\r\n").encode()])
def test_a_byte_order_mark_and_the_ends_of_lines_change_nothing(tmp_path: Path, text: bytes) -> None:
    plain, other = tmp_path / "plain.jsonl", tmp_path / "other.jsonl"
    plain.write_bytes(ROWS.encode())
    other.write_bytes(text)
    assert read_data(other).examples == read_data(plain).examples
    assert len(read_data(other).examples) == 12


@pytest.mark.parametrize(
    ("content", "code", "expected_text"),
    [
        (ROWS.encode("utf-16"), "not_utf8", "looks like UTF-16LE. Save it as UTF-8: iconv -f UTF-16LE -t UTF-8"),
        (ROWS.encode("utf-16-le"), "not_utf8", "UTF-16LE"),
        (ROWS.encode("utf-16-be"), "not_utf8", "UTF-16BE"),
        (ROWS.encode("utf-32"), "not_utf8", "UTF-32LE"),
        (ROWS.encode("cp1252"), "not_utf8", "looks like WINDOWS-1252. Save it as UTF-8: iconv -f WINDOWS-1252"),
        (ROWS.replace("\u2019", "").encode("latin-1"), "not_utf8", "looks like ISO-8859-1 (Latin-1)"),
        (gzip.compress(ROWS.encode(), mtime=0), "compressed", "(gzip). Unpack it first: gunzip FILE"),
        (bz2.compress(ROWS.encode()), "compressed", "(bzip2)"),
        (lzma.compress(ROWS.encode()), "compressed", "(xz)"),
        (b"PK\x03\x04" + bytes(40), "compressed", "ZIP archive"),
    ],
)
def test_another_encoding_is_named_once_with_the_remedy(tmp_path: Path, content: bytes, code: str, expected_text: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    (problem,) = read_data(path).problems
    assert (problem.code, expected_text in problem.message) == (code, True), problem.message


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (rb'{"messages": [{"role": "user", "content": "\ud83d x"}, {"role": "assistant", "content": "a"}]}', "messages.0.content"),
        (rb'{"prompt": "\udc00", "completion": "b"}', "prompt"),
        (rb'{"prompt": "a", "completion": "b", "\udc00": 1}', "A field's name"),
    ],
)
def test_half_a_surrogate_pair_names_its_field(tmp_path: Path, row: bytes, field: str) -> None:
    (problem,) = read(tmp_path, row).problems
    assert (problem.line, problem.code) == (1, "lone_surrogate")
    assert problem.message.startswith(f"{field} has half of a surrogate pair")
    assert not read(tmp_path, rb'{"prompt": "\ud83d\ude00", "completion": "b"}').problems


def test_arguments_of_calls_are_read_alike_as_text_and_as_object(tmp_path: Path) -> None:
    def called(arguments: Any) -> dict[str, Any]:
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        return {"messages": [USER, {"role": "assistant", "tool_calls": [call]}]}

    data = read(tmp_path, called({"when": [1, "\u00e9"]}), called('{"when":[1,"\u00e9"]}'))
    assert (data.num_examples, data.duplicates.count) == (1, 1)
    (example,) = data.examples
    assert isinstance(example, Conversation)
    assert example.messages[1]["tool_calls"][0]["function"]["arguments"] == '{"when":[1,"\u00e9"]}'
    assert read(tmp_path, called([1])).problems[0].code == "wrong_tools"
    assert read(tmp_path, called('"{}"')).problems[0].code == "wrong_tools"


def test_a_line_too_long_is_refused_by_its_number_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    with path.open("wb") as file:
        file.write(b'{"prompt": "a", "completion": "b"}\n{"prompt": "')
        for _ in range(64):
            file.write(b"x" * (1 << 20))
        file.write(b'", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n')
    tracemalloc.start()
    try:
        data = read_data(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(each.line, each.code) for each in data.problems] == [(2, "line_too_long")]
    assert [example.line for example in data.examples] == [1, 3]
    assert peak < 4 * MAX_LINE_BYTES
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_stream_keeps_no_example(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    with path.open("w") as file:
        for number in range(5000):
            file.write(json.dumps({"prompt": f"{number}", "completion": "b" * 4000}) + "\n")
    data = Data(path)
    tracemalloc.start()
    try:
        assert sum(1 for _ in stream(data)) == 5000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert data.examples == []
    assert peak < 4 << 20, "the file has 20 MB"


def test_a_file_of_nothing_but_mistakes_is_counted_whole_and_shown_in_part(tmp_path: Path) -> None:
    data = read(tmp_path, *[b"x"] * 1500)
    assert (data.num_problems, len(data.problems)) == (1500, 1000)


def test_the_preference_between_equals_is_none(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "b"}, objective="dpo").problems
    assert problem.code == "no_preference"
    (problem,) = read(tmp_path, {"q": 1}, text_template="{p}").problems
    assert problem.code == "missing_column"
