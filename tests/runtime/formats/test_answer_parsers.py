"""What each family's answers say, however their text is cut: content, thoughts and calls, and not a character lost."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.text.formats.answer_parser import answer_parser
from runtime.text.formats.protocol import REASONING_FORMATS
from runtime.text.formats.reader import AnswerParser, ContentDelta, ToolCallArguments, ToolCallBegin
from runtime.text.formats.recognition import TOOL_FORMATS
from tests.effort import drawn
from tests.runtime.formats.recorded_answers import RECORDED, ParsedAnswer, Recorded, read

FAMILIES = sorted(TOOL_FORMATS)
SYNTAX = (
    *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "<|tool_call|>", "<|/tool_call|>"),
    "functools",
    *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
    *("function", "```json", "```tool_code", "```", "{", "}", "[", "]", ",", ":", ";", '"', "\\", "\n", " ", "1", "null", "é👋"),
    *('"name"', '"arguments"', '"parameters"', '"tool_calls"', '{"name": "f", "arguments": {"a": 1}}', '"f"', "f", "text"),
    *("<think>", "</think>", "[THINK]", "[/THINK]"),
)
garbage = st.lists(st.sampled_from(SYNTAX), max_size=12).map("".join)
answers = st.one_of(garbage, st.sampled_from(RECORDED).map(lambda recorded: recorded.text))
cuts = st.lists(st.integers(0, 300), max_size=8)


def parser_of(family: str, reasoning: str | None = None, *, in_thought: bool = False) -> AnswerParser:
    return answer_parser(REASONING_FORMATS[reasoning] if reasoning else None, TOOL_FORMATS[family], in_thought=in_thought)


def split(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: f"{recorded.family}: {recorded.what}")
def test_a_recorded_answer_says_what_its_model_meant(recorded: Recorded) -> None:
    assert read(parser_of(recorded.family), [recorded.text]) == recorded.parsed
    assert read(parser_of(recorded.family), recorded.text) == recorded.parsed


@drawn(600)
@given(st.sampled_from(FAMILIES), answers, cuts, st.sampled_from([None, *REASONING_FORMATS]), st.booleans())
@example("hermes", "a \n<tool_call> \n", [3], None, False)
@example("phi4", "x functools functools[", [9, 18], None, False)
def test_any_split_says_what_the_whole_says(family: str, text: str, places: list[int], reasoning: str | None, opened: bool) -> None:
    whole = read(parser_of(family, reasoning, in_thought=opened), [text])
    assert read(parser_of(family, reasoning, in_thought=opened), split(text, places)) == whole
    assert read(parser_of(family, reasoning, in_thought=opened), text) == whole


@drawn(400)
@given(st.sampled_from(FAMILIES), garbage)
def test_without_a_call_every_character_is_content(family: str, text: str) -> None:
    parsed = read(parser_of(family), [text])
    if not parsed.calls and "[]" not in "".join(text.split()):  # an empty list of calls has no content
        assert parsed.content == text


@drawn(300)
@given(st.sampled_from([recorded for recorded in RECORDED if recorded.calls]), st.integers(0, 400))
def test_a_cut_answer_says_a_beginning_of_the_arguments(recorded: Recorded, at: int) -> None:
    parsed = read(parser_of(recorded.family), [recorded.text[:at]])
    for cut, whole in zip(parsed.calls, recorded.parsed.calls, strict=False):
        assert cut.name == whole.name
        assert whole.arguments.startswith(cut.arguments)
    assert len(parsed.calls) <= len(recorded.parsed.calls)


def test_arguments_are_emitted_as_they_come_and_never_before_the_name() -> None:
    parser = parser_of("hermes")
    assert parser.feed('Hi <tool_call>\n{"name": "f"') == [ContentDelta("Hi")]
    assert parser.feed(', "arguments": {"a": ') == [ToolCallBegin(0, "f"), ToolCallArguments(0, '{"a": ')]
    assert parser.feed('"b') == [ToolCallArguments(0, '"b')]
    assert parser.feed('"}') == [ToolCallArguments(0, '"}')]
    assert parser.feed("}\n</tool") == []
    assert parser.finish() == [ContentDelta("</tool")]


def test_arguments_before_the_name_wait_for_it() -> None:
    parser = parser_of("hermes")
    assert parser.feed('<tool_call>{"arguments": {"a": 1}, "name": ') == []
    assert parser.feed('"f"}') == [ToolCallBegin(0, "f"), ToolCallArguments(0, '{"a": 1}')]


def test_text_is_returned_at_once_but_for_what_could_become_a_mark() -> None:
    parser = parser_of("hermes")
    assert parser.feed("one two \n<tool") == [ContentDelta("one two")]
    assert parser.feed("box>") == [ContentDelta(" \n<toolbox>")]


def test_a_whole_escaped_object_is_emitted_as_an_object() -> None:
    text = json.dumps({"name": "f", "arguments": json.dumps({"a": 'q"'})})
    [call] = read(parser_of("hermes"), [f"<tool_call>{text}</tool_call>"]).calls
    assert json.loads(call.arguments) == {"a": 'q"'}


@pytest.mark.parametrize(
    ("in_thought", "text", "parsed"),
    [
        (False, "<think>\nHm, 4.\n</think>\n\nIt is 4.", ParsedAnswer("It is 4.", "Hm, 4.")),
        (False, "\n<think></think>4", ParsedAnswer("4")),
        (False, "It is <think>4</think>.", ParsedAnswer("It is <think>4</think>.")),
        (False, "  4", ParsedAnswer("  4")),
        (True, "Hm.</think>4", ParsedAnswer("4", "Hm.")),
        (True, "<think>Hm.</think>4", ParsedAnswer("4", "Hm.")),
        (True, "Hm, <tool_call> </thin", ParsedAnswer("", "Hm, <tool_call> </thin")),
        (True, "Hm.</think>4 <think>5</think>", ParsedAnswer("4 <think>5</think>", "Hm.")),
    ],
)
@pytest.mark.parametrize("by_character", [False, True])
def test_the_thought_comes_first(in_thought: bool, text: str, parsed: ParsedAnswer, by_character: bool) -> None:
    assert read(parser_of("hermes", "think", in_thought=in_thought), text if by_character else [text]) == parsed


def test_calls_follow_a_thought_also_where_they_must_begin_the_answer() -> None:
    parsed = read(parser_of("llama3", "think"), '<think>Call.</think>\n\n{"name": "f", "parameters": {}}')
    assert (parsed.reasoning, parsed.content, [call.name for call in parsed.calls]) == ("Call.", "", ["f"])


def test_without_formats_an_answer_is_content() -> None:
    text = '<think>x</think><tool_call>{"name": "f"}'
    assert read(answer_parser(None, None), text) == ParsedAnswer(text)
    assert read(answer_parser(REASONING_FORMATS["mistral"], None), "[THINK]x[/THINK] y") == ParsedAnswer("y", "x")
