"""The grammars of each family's calls: what it writes is accepted, other tools and arguments are not, and all that is parses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from runtime.protocol.errors import InvalidRequest
from runtime.protocol.request import ToolChoice, ToolMode
from runtime.text.formats.call_grammar import arguments_schema, loosened
from runtime.text.formats.deepseek import DeepSeek
from runtime.text.formats.mistral import Mistral
from runtime.text.formats.phi4 import Phi4
from runtime.text.formats.protocol import ToolFormat
from runtime.text.formats.recognition import TOOL_FORMATS
from tests.runtime.formats.lark_matchers import Matching
from tests.runtime.formats.recorded_answers import ParsedAnswer, fenced, read

Case = tuple[ToolFormat, tuple[str, str], str]

# Each way of writing: the format, one call around a name and its arguments, and what stands between two calls.
WAYS: dict[str, Case] = {
    "hermes": (TOOL_FORMATS["hermes"], ('<tool_call>\n{"name": "%s", "arguments": ', "}\n</tool_call>"), "\n"),
    "smollm": (TOOL_FORMATS["smollm"], ('{"name": "%s", "arguments": ', "}"), ", "),
    "llama3": (TOOL_FORMATS["llama3"], ('{"name": "%s", "parameters": ', "}"), "; "),
    "mistral": (TOOL_FORMATS["mistral"], ('{"name": "%s", "arguments": ', "}"), ", "),
    "mistral, named": (Mistral(in_list=False), ("[TOOL_CALLS]%s[ARGS]", ""), ""),
    "phi4": (TOOL_FORMATS["phi4"], ('{"name": "%s", "arguments": ', "}"), ", "),
    "phi4, functools": (Phi4(functools=True), ('{"name": "%s", "arguments": ', "}"), ", "),
    "deepseek": (TOOL_FORMATS["deepseek"], (fenced("%s", "|").partition("|")[0], "\n```<｜tool▁call▁end｜>"), "\n"),
    "deepseek, short": (DeepSeek(fenced=False), ("<｜tool▁call▁begin｜>%s<｜tool▁sep｜>", "<｜tool▁call▁end｜>"), ""),
    "gemma": (TOOL_FORMATS["gemma"], ('{"name": "%s", "parameters": ', "}"), "; "),
    "generic": (TOOL_FORMATS["generic"], ('{"name": "%s", "arguments": ', "}"), ", "),
}
AROUND = {
    "smollm": ("<tool_call>[", "]</tool_call>"),
    "mistral": ("[TOOL_CALLS] [", "]"),
    "phi4": ("<|tool_call|>[", "]<|/tool_call|>"),
    "phi4, functools": ("functools[", "]"),
    "deepseek": ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    "deepseek, short": ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    "generic": ('{"tool_calls": [', "]}"),
}
ONLY_CALLS = {"llama3", "gemma", "generic"}  # ways in which calls are the whole answer

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 5}, "unit": {"enum": ["celsius", "kelvin"]}},
    "required": ["city"],
}
SCALE = {"type": "object", "properties": {"by": {"type": "integer", "minimum": -3, "maximum": 12}}, "required": ["by"]}


def tool(name: str, parameters: dict[str, Any] | None, *, strict: bool | None = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, "strict": strict}}


TOOLS = [tool("get_weather", WEATHER), tool("get_weather_scale", SCALE), tool("now", None)]
AUTO, REQUIRED = ToolChoice(), ToolChoice(mode=ToolMode.REQUIRED)


def written(way: str, *calls: tuple[str, str]) -> str:
    _, (before, after), between = WAYS[way]
    opening, closing = AROUND.get(way, ("", ""))
    return opening + between.join(before % name + arguments + after for name, arguments in calls) + closing


def matching(way: str, choice: ToolChoice, *, special: bool = False, tools: list[dict[str, Any]] = TOOLS) -> Matching:
    family = WAYS[way][0]
    return Matching(family.grammar(tools, choice), family.special_tokens if special else ())


def parsed(way: str, text: str) -> ParsedAnswer:
    return read(WAYS[way][0].parser(), [text])


each_way = pytest.mark.parametrize("way", WAYS)
with_tokens_or_text = pytest.mark.parametrize("special", [False, True], ids=["marks are text", "marks are tokens"])

PARIS, THREE = ("get_weather", '{"city": "Paris", "unit": "celsius"}'), ("get_weather_scale", '{"by": 3}')


@each_way
@with_tokens_or_text
def test_in_auto_mode_calls_must_be_right_and_text_may_be_anything(way: str, special: bool) -> None:
    grammar = matching(way, AUTO, special=special)
    assert grammar.accepts("")
    assert grammar.accepts("It is [warm] in {Paris}.\n\n")
    assert grammar.accepts(written(way, PARIS))
    assert grammar.accepts(written(way, PARIS, THREE))
    assert grammar.accepts(written(way, ("now", "{}")))
    assert not grammar.accepts(written(way, ("get_weath", '{"city": "Paris"}')))
    assert not grammar.accepts(written(way, ("get_weather", '{"city": 3}')))
    assert not grammar.accepts(written(way, ("get_weather", "{}")))
    assert not grammar.accepts(written(way, PARIS, ("get_weather_scale", '{"by": "3"}')))
    assert not grammar.accepts(written(way, ("now", '{"zone": "UTC"}')))
    assert grammar.accepts("Let me see.\n" + written(way, PARIS))
    assert grammar.allows("Let me see.\n" + written(way, ("rain", "{}"))) is (way in ONLY_CALLS)


@each_way
@with_tokens_or_text
def test_a_required_call_is_all_of_the_answer(way: str, special: bool) -> None:
    grammar = matching(way, REQUIRED, special=special)
    assert grammar.accepts(written(way, PARIS))
    assert grammar.accepts(written(way, PARIS, THREE, PARIS))
    assert not grammar.accepts("")
    assert not grammar.allows("I ")
    assert not grammar.accepts(written(way, ("rain", "{}")))
    assert not grammar.accepts(written(way, PARIS) + " Done")


@each_way
@pytest.mark.parametrize("mode", ToolMode)
def test_only_named_tools_may_be_called(way: str, mode: ToolMode) -> None:
    grammar = matching(way, ToolChoice(mode=mode, names=("get_weather_scale",)))
    assert grammar.accepts(written(way, THREE))
    assert not grammar.accepts(written(way, PARIS))


@each_way
@pytest.mark.parametrize("mode", ToolMode)
def test_without_parallel_calls_there_is_one(way: str, mode: ToolMode) -> None:
    grammar = matching(way, ToolChoice(mode=mode, parallel=False))
    assert grammar.accepts(written(way, PARIS))
    assert not grammar.accepts(written(way, PARIS, THREE))


@each_way
@with_tokens_or_text
def test_what_a_walk_through_a_required_grammar_writes_are_valid_calls(way: str, special: bool) -> None:
    grammar = matching(way, REQUIRED, special=special)
    ended = 0
    for seed in range(12):
        text = grammar.walk(seed)
        if text is None:
            continue
        ended += 1
        answer = parsed(way, text)
        assert answer.calls
        assert not answer.content
        check(answer)
    assert ended >= 6


@each_way
def test_what_a_walk_after_a_mark_writes_are_valid_calls(way: str) -> None:
    mark = "{" if way in ONLY_CALLS else written(way, PARIS).partition("get_weather")[0]
    grammar = matching(way, AUTO)
    texts = [text for seed in range(12) if (text := grammar.walk(seed, prefix=mark)) is not None]
    assert len(texts) >= 6
    for text in texts:
        answer = parsed(way, text)
        assert answer.calls
        check(answer)


def check(answer: ParsedAnswer) -> None:
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] or {"maxProperties": 0} for tool in TOOLS}
    for call in answer.calls:
        arguments = json.loads(call.arguments)
        assert isinstance(arguments, dict)
        Draft202012Validator(schemas[call.name]).validate(arguments)


@pytest.mark.parametrize("fence", ["```json\n", "```tool_code\n", "```\n"])
@pytest.mark.parametrize("way", sorted(ONLY_CALLS))
def test_a_fence_around_calls_does_not_free_them(way: str, fence: str) -> None:
    grammar = matching(way, AUTO)
    assert grammar.accepts(f"{fence}{written(way, PARIS)}\n```")
    assert not grammar.allows(f'{fence}{{"a')
    assert grammar.accepts(f"\n\n{fence}{written(way, PARIS)}\n```")
    assert grammar.accepts(f"\n\n{written(way, PARIS)}")
    assert not grammar.allows('\n\n{"a')
    assert grammar.accepts("\n\nIt is warm.")
    assert grammar.accepts("```python\n{1, 2}\n```")


def test_the_list_of_smollm_may_be_empty_unless_a_call_is_required() -> None:
    assert matching("smollm", AUTO).accepts("<tool_call>[]</tool_call>")
    assert not matching("smollm", REQUIRED).allows("<tool_call>[]")


UNSUPPORTED = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=b)c"}}}


def test_what_no_grammar_expresses_is_passed_over_unless_the_tool_is_strict() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [2**60]}}}
    assert matching("hermes", REQUIRED, tools=[tool("f", schema)]).allows('<tool_call>\n{"name": "f", "arguments": {"a": ')
    with pytest.raises(InvalidRequest, match="enum"):
        matching("hermes", REQUIRED, tools=[tool("f", schema, strict=True)])


def test_loosened_tools_take_any_object_unless_they_are_strict() -> None:
    tools = loosened([tool("f", UNSUPPORTED), tool("g", WEATHER, strict=True)])
    grammar = matching("hermes", REQUIRED, tools=tools)
    assert grammar.accepts(written("hermes", ("f", '{"a": 1, "b": [{}]}')))
    assert not grammar.allows(written("hermes", ("g", '{"a')))


def test_arguments_are_an_object_of_the_properties_that_are_named() -> None:
    named = {"properties": {"a": {"type": "integer"}}}
    assert arguments_schema({"parameters": named}) == {"additionalProperties": False, **named, "type": "object"}
    open_to_more = {**named, "additionalProperties": {"type": "string"}}
    assert arguments_schema({"parameters": open_to_more}) == {**open_to_more, "type": "object"}
    combined = {**named, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
    assert "additionalProperties" not in arguments_schema({"parameters": combined})
    assert arguments_schema({"parameters": {}}) == {"type": "object"}


@pytest.mark.parametrize("name", ["NAME", "ARGUMENTS", "a-b_C9"])
def test_tools_may_be_called_anything(name: str) -> None:
    for way in WAYS:
        assert matching(way, REQUIRED, tools=[tool(name, None)]).accepts(written(way, (name, "{}")))
