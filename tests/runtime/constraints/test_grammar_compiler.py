"""Grammars of every kind compile, or are refused with what is wrong; rows share what was compiled, threads as well."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest

from runtime.protocol.errors import InvalidRequest
from runtime.protocol.request import Grammar, GrammarKind
from runtime.text.constraints.compiler import CACHED_GRAMMARS, GrammarCompiler
from runtime.text.constraints.json_schema import MAX_SCHEMAS
from runtime.text.constraints.lark import json_rule, literal, token, with_tokens
from tests.runtime.constraints.grammar_walks import accepts, byte_compiler, random_answer, schema_grammar

NASTY = ["yes", "yes, sir", 'say "no"', "é\n\\", "", "<|user|>", "\x7f"]


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return byte_compiler()


def grammar(kind: GrammarKind, source: str) -> Grammar:
    return Grammar(kind=kind, source=source)


def test_choices_are_answered_as_they_are(compiler: GrammarCompiler) -> None:
    make = compiler.compile(grammar(GrammarKind.CHOICE, json.dumps(NASTY)))
    answers = {random_answer(make(), Random(seed)) for seed in range(60)}
    assert answers <= {text.encode() for text in NASTY}
    assert len(answers) >= 4
    assert all(accepts(make(), text) for text in NASTY)
    assert not accepts(make(), "yes, si")


@pytest.mark.parametrize("pattern", [r"[a-c]{2,5}", r"^\d{3}-\d{4}$", r"(red|green) apples?", r"a/b\.c", r"x*", "é+\n"])
def test_answers_match_the_expression(pattern: str, compiler: GrammarCompiler) -> None:
    make = compiler.compile(grammar(GrammarKind.REGEX, pattern))
    answers = [answer for seed in range(20) if (answer := random_answer(make(), Random(seed))) is not None]
    assert answers
    assert all(re.fullmatch(pattern, answer.decode()) for answer in answers)


@pytest.mark.parametrize("num_properties", [1000, MAX_SCHEMAS - 2])
def test_as_many_optional_properties_as_a_schema_may_have(num_properties: int, compiler: GrammarCompiler) -> None:
    properties = {f"p{number}": {"enum": [number]} for number in range(num_properties)}
    make = compiler.compile(schema_grammar({"type": "object", "properties": properties, "additionalProperties": False}))
    last = num_properties - 1
    assert accepts(make(), f'{{"p3": 3, "p500": 500, "p{last}": {last}}}')
    assert not accepts(make(), f'{{"p{last}": 3}}')


def test_an_empty_expression_is_an_empty_answer(compiler: GrammarCompiler) -> None:
    assert random_answer(compiler.compile(grammar(GrammarKind.REGEX, ""))(), Random(0)) == b""


def test_answers_follow_a_lark_grammar(compiler: GrammarCompiler) -> None:
    sums = 'start: sum\nsum: NUMBER ("+" NUMBER)*\nNUMBER: /[1-9][0-9]{0,2}/'
    make = compiler.compile(grammar(GrammarKind.LARK, sums))
    answers = [answer for seed in range(20) if (answer := random_answer(make(), Random(seed))) is not None]
    assert len(answers) > 10
    assert all(re.fullmatch(rb"[1-9][0-9]{0,2}(\+[1-9][0-9]{0,2})*", answer) for answer in answers)


def test_json_is_laid_out_as_python_does(compiler: GrammarCompiler) -> None:
    value = {"a": [1, 2], "b": {"c": "d"}}
    make = compiler.compile(schema_grammar({"type": "object"}))
    assert accepts(make(), json.dumps(value))
    assert not accepts(make(), json.dumps(value, separators=(",", ":")))
    assert not accepts(make(), json.dumps(value, indent=1))
    inside = compiler.compile(grammar(GrammarKind.CALLS, f"start: {literal('<')} {json_rule({'const': value})} {literal('>')}"))
    assert random_answer(inside(), Random(0)) == f"<{json.dumps(value)}>".encode()


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "integer", "not": {"const": 3}}, '"not" is not supported. Leave it out.'),
        ({"type": "array", "uniqueItems": True, "contains": {}}, '"contains", "uniqueItems" are not supported. Leave them out.'),
        ({"properties": {"a": {"if": {}, "then": {}}}}, '"if", "then"'),
        ({"type": "string", "format": "regex"}, '"format" "regex" is not supported. Leave it out, or use one of date-time,'),
        ({"type": "string", "format": "unknown"}, '"format"'),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, '"oneOf" is supported only where'),
        ({"$ref": "https://example.org/schema"}, "https://example.org/schema; other documents are never fetched"),
        ({"$schema": "https://example.org/dialect", "type": "integer"}, "https://example.org/dialect"),
        ({"$ref": "#/$defs/none"}, "/$defs/none"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "nothing satisfies it"),
        ({"type": "string", "pattern": "(?=a)"}, "look-around"),
        ({"type": "string", "pattern": "["}, "unclosed character class"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength (3) is greater than maxLength (2)"),
        ({"enum": []}, "nothing satisfies it"),
        (False, "nothing satisfies it"),
        ({"type": "text"}, "Invalid type: text"),
        (3, "neither an object nor a boolean"),
        ({"type": "object", "minProperties": 2}, '"minProperties" needs 2 keys more'),
        ({"const": 2**53 + 1}, '"const" has a number beyond 2**53'),
        ({"properties": {"a": {"anyOf": [{"enum": [{"b": [-(2**60)]}]}]}}}, '"enum" has a number beyond 2**53'),
        ({"type": "integer", "multipleOf": 1000003}, '"multipleOf" has a divisor above 10000'),
        ({"x-guidance": {"lenient": True}, "not": {}}, '"x-guidance"'),
        (nested(120), "nested deeper than 100 schemas"),
        ({"properties": {f"p{i}": {} for i in range(5000)}}, "more than 4000 schemas"),
        ({"allOf": [{"anyOf": [{"properties": {f"a{i}{j}": {}}} for j in range(4)]} for i in range(10)]}, "too large"),
    ],
)
def test_a_schema_is_refused_by_name(schema: Any, named: str, compiler: GrammarCompiler) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        compiler.compile(schema_grammar(schema))
    assert named in refusal.value.message
    assert (refusal.value.code, refusal.value.field) == ("unsupported_schema", "form")
    assert "backtrace" not in refusal.value.message
    assert "x-guidance" not in refusal.value.message.replace('"x-guidance" may not', "")


@pytest.mark.parametrize(
    ("kind", "source", "named"),
    [
        (GrammarKind.JSON_SCHEMA, '{"type": ', "is not JSON (Expecting value: line 1 column 10"),
        (GrammarKind.JSON_SCHEMA, '{"const": NaN}', "NaN is not a JSON value"),
        (GrammarKind.JSON_SCHEMA, "[" * 100_000, "nested too deeply"),
        (GrammarKind.JSON_SCHEMA, " " * 1_000_001, "larger than 1000000 bytes"),
        pytest.param(GrammarKind.JSON_SCHEMA, '{"a":' * 500 + "{}" + "}" * 500, "nested too deeply", id="deep"),
        (GrammarKind.CHOICE, "[]", "a list of at least one text"),
        (GrammarKind.CHOICE, '["a", 1]', "a list of at least one text"),
        (GrammarKind.REGEX, "a(?=b)", "look-around"),
        (GrammarKind.REGEX, "[a", "unclosed character class"),
        (GrammarKind.REGEX, r"(a)\1", "backreferences are not supported"),
        (GrammarKind.LARK, 'start: "a" thing\nthing: other', 'line 2, column 8: unknown name: "other"'),
        (GrammarKind.LARK, "start: <|nope|>", 'line 1, column 8: unknown special token: "<|nope|>"'),
        (GrammarKind.LARK, "hello", "line 1, column 6"),
        (GrammarKind.LARK, "", "no start rule"),
        (GrammarKind.LARK, "start: a\na: a a | a", "nothing satisfies it"),
    ],
)
def test_a_grammar_that_cannot_be_read_is_refused(kind: GrammarKind, source: str, named: str, compiler: GrammarCompiler) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        compiler.compile(grammar(kind, source))
    assert named in refusal.value.message
    assert (refusal.value.code, refusal.value.field) == ("invalid_grammar", "form")


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        (GrammarKind.REGEX, "((a|aa)*)*b"),
        (GrammarKind.REGEX, "(a|b)*a(a|b){25}"),
        (GrammarKind.REGEX, "x{0,100000}"),
        (GrammarKind.JSON_SCHEMA, json.dumps({"type": "array", "minItems": 10**9, "items": {"type": "integer"}})),
        (GrammarKind.JSON_SCHEMA, json.dumps({"type": "string", "minLength": 10**7})),
        (GrammarKind.CHOICE, json.dumps([f"choice number {i}" for i in range(20_000)])),
    ],
)
@pytest.mark.timeout(20)
def test_large_bounds_and_nested_repeats_are_harmless(kind: GrammarKind, source: str, compiler: GrammarCompiler) -> None:
    random_answer(compiler.compile(grammar(kind, source))(), Random(0), most=50)


def test_dates_exist(compiler: GrammarCompiler) -> None:
    make = compiler.compile(schema_grammar({"type": "string", "format": "date"}))
    good = ["2024-02-29", "2000-02-29", "2023-02-28", "0004-12-31", "9999-01-30"]
    bad = ["2023-02-29", "1900-02-29", "0000-01-01", "2023-04-31", "2023-13-01"]
    assert [text for text in good + bad if accepts(make(), json.dumps(text))] == good
    with_own_pattern = compiler.compile(schema_grammar({"type": "string", "format": "date", "pattern": "^20"}))
    assert accepts(with_own_pattern(), '"2024-02-29"')
    assert not accepts(with_own_pattern(), '"2023-02-29"')
    assert not accepts(with_own_pattern(), '"1999-01-01"')


def test_what_was_compiled_is_kept_and_what_was_long_unused_is_not(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    build = GrammarCompiler._build

    def counted(self: GrammarCompiler, requested: Grammar) -> Any:
        built.append(requested.source)
        return build(self, requested)

    monkeypatch.setattr(GrammarCompiler, "_build", counted)
    fresh = byte_compiler()
    kept = grammar(GrammarKind.REGEX, "kept")
    for number in range(CACHED_GRAMMARS + 1):
        fresh.compile(kept)
        fresh.compile(grammar(GrammarKind.REGEX, f"number {number}"))
    assert built.count("kept") == 1
    fresh.compile(grammar(GrammarKind.REGEX, f"number {CACHED_GRAMMARS}"))
    fresh.compile(grammar(GrammarKind.REGEX, "number 0"))
    assert built.count(f"number {CACHED_GRAMMARS}") == 1
    assert built.count("number 0") == 2


def test_threads_may_compile_and_walk_at_once() -> None:
    compiler, start = byte_compiler(), threading.Barrier(6)

    def work(number: int) -> list[bool]:
        start.wait()
        results = []
        for step in range(12):
            wanted = f"answer {(number + step) % 4}"
            make = compiler.compile(grammar(GrammarKind.CHOICE, json.dumps([wanted, "other"])))
            results.append(random_answer(make(), Random(step)) in (wanted.encode(), b"other"))
        return results

    with ThreadPoolExecutor(6) as pool:
        assert all(all(results) for results in pool.map(work, range(6)))


def test_tokens_are_looked_for_outside_of_texts_alone() -> None:
    first = f'start: "%token " | /%token "x"/ | {token("<a>")} // %token "<a>"'
    source = f"{first}\nbegin[lazy]: T {token('<a>')}\nrest[lazy]: T {token('b')}"
    assert with_tokens(source, {"<a>": 7}.get).split("\n") == [
        'start: "%token " | /%token "x"/ | <[7]> // %token "<a>"',
        "begin: T <[7]>",
        'rest[lazy]: T "b"',
    ]


def test_a_lenient_rule_passes_over_what_it_cannot_express(compiler: GrammarCompiler) -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    make = compiler.compile(grammar(GrammarKind.CALLS, f"start: {json_rule(schema, lenient=True)}"))
    assert accepts(make(), "[1, 1]")
    assert not accepts(make(), '["a"]')
    with pytest.raises(InvalidRequest, match='"uniqueItems" is not supported'):
        compiler.compile(grammar(GrammarKind.CALLS, f"start: {json_rule(schema)}"))


def test_a_refusal_does_not_quote_a_whole_expression(compiler: GrammarCompiler) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compiler.compile(grammar(GrammarKind.REGEX, "(" * 5000 + "a" + ")" * 5000))
    assert caught.value.code == "invalid_grammar"
    assert len(caught.value.message) < 1000
