"""Any form that a client may prescribe for an answer is followed, or refused by name; never a 5xx, and no form stops the server."""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.contract.conversation import CHAT, assert_lives, post_values, why_wrong
from tests.effort import drawn

DRAWN = settings(
    drawn(200),
    phases=[Phase.generate],  # to shrink what hangs would take hours
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
SIZES = st.sampled_from([0, 1, 2, 10, 10**6, -1, 2**31, 2**63])
PATTERNS = st.lists(
    st.sampled_from(["a", "b", ".", r"\d", r"\s", r"\w", r"\b", "[a-c]", "[^a]", "é", "*", "+", "?", "{2}", "{3,}", "{0,9}", "|"])
    | st.sampled_from(["(", ")", "(?:", "(?i)", "(?=", "^", "$", "\\", "\\1", r"\p{L}", r"\u00e9", "[", "]", "-"]),
    max_size=8,
).map("".join)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "null", "object", "array", "text"])
CONSTANTS = st.sampled_from([None, True, 1, 1.5, "", "a", "é👩‍👧", [], [1], {}, {"a": None}])


def _of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas that hold schemas; most keywords, each with what it may have and, rarely, with what it may not."""
    named = st.dictionaries(st.sampled_from(["a", "b", "", "é"]), inner, max_size=2)
    keywords = {
        "type": TYPES | st.lists(TYPES, max_size=2),
        "properties": named,
        "required": st.lists(st.sampled_from(["a", "b", "", "c"]), max_size=2),
        "additionalProperties": inner,
        "patternProperties": st.dictionaries(PATTERNS, inner, max_size=1),
        "items": inner,
        "prefixItems": st.lists(inner, max_size=2),
        "anyOf": st.lists(inner, max_size=2),
        "oneOf": st.lists(inner, max_size=2),
        "allOf": st.lists(inner, max_size=2),
        "not": inner,
        "$ref": st.sampled_from(["#", "#/$defs/a", "#/properties/a", "https://example.org", ""]),
        "$defs": named,
        "const": CONSTANTS,
        "enum": st.lists(CONSTANTS, max_size=3),
        "pattern": PATTERNS,
        "format": st.sampled_from(["date", "date-time", "email", "uuid", "ipv4", "uri", "unheard-of"]),
        "multipleOf": st.sampled_from([0, 1, 0.1, 7, -1]),
    }
    sizes = ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minimum", "exclusiveMaximum"]
    return st.fixed_dictionaries({}, optional=keywords | dict.fromkeys(sizes, SIZES) | {"uniqueItems": st.booleans()}).map(_few)


def _few(schema: dict[str, Any]) -> dict[str, Any]:
    """Four keywords at most: more contradict each other nearly always."""
    return dict(list(schema.items())[:4])


SCHEMAS: st.SearchStrategy[Any] = st.recursive(st.builds(dict, type=TYPES) | st.booleans() | st.just({}), _of, max_leaves=6)
RULES = st.sampled_from(['"a"', "a", "b", "start", "/a+/", "/[^a]/", '%json {"type": "null"}', "a*", "(a | b)?", "<|eos|>"])
GRAMMARS = st.lists(st.lists(RULES, min_size=1, max_size=3).map(" ".join), min_size=3, max_size=3).map(
    lambda rules: f"start: {rules[0]}\na: {rules[1]}\nb: {rules[2]}\n"
)


@DRAWN
@given(schema=SCHEMAS.filter(lambda schema: isinstance(schema, dict)))
def test_any_schema(http: httpx.Client, cases: Counter[str], schema: dict[str, Any]) -> None:
    _request(http, cases, {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}})


@DRAWN
@given(schema=SCHEMAS.filter(lambda schema: isinstance(schema, dict)))
def test_any_tool(http: httpx.Client, cases: Counter[str], schema: dict[str, Any]) -> None:
    """Held to strictly, and called."""
    function = {"name": "f", "parameters": {**schema, "type": "object"}, "strict": True}
    _request(http, cases, {"tools": [{"type": "function", "function": function}], "tool_choice": "required"})


@DRAWN
@given(pattern=PATTERNS)
def test_any_pattern(http: httpx.Client, cases: Counter[str], pattern: str) -> None:
    _request(http, cases, {"structured_outputs": {"regex": pattern}})


@DRAWN
@given(grammar=GRAMMARS | st.text('startab:|\n "/()?*+%{}<>', max_size=40))
def test_any_grammar(http: httpx.Client, cases: Counter[str], grammar: str) -> None:
    _request(http, cases, {"structured_outputs": {"grammar": grammar}})


def _request(http: httpx.Client, cases: Counter[str], form: dict[str, Any]) -> None:
    response = post_values(http, CHAT, {**form, "max_tokens": 24})
    cases[f"forms, answered {response.status_code}"] += 1
    assert why_wrong(response, list(form)) is None


def test_the_server_lives(http: httpx.Client) -> None:
    assert_lives(http)
