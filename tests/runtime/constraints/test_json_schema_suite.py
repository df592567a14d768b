"""The JSON Schema test suite: what a schema forbids is never an answer, what is answered validates, what is refused is named."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from runtime.protocol.errors import InvalidRequest
from runtime.text.constraints.compiler import GrammarCompiler
from runtime.text.constraints.constraint import Constraint
from tests.runtime.constraints.grammar_walks import accepts, byte_compiler, random_answer, schema_grammar

CASES = [json.loads(line) for line in (Path(__file__).parent / "json_schema_suite" / "draft2020-12.jsonl").read_text().splitlines()]
KEYWORDS = sorted({case["keyword"] for case in CASES})
FORMATS = FormatChecker(("date", "email", "ipv4", "ipv6", "uuid"))  # those that the package checks by itself, and well
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return byte_compiler()


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_of_a_keyword(keyword: str, compiler: GrammarCompiler, record_property: Record) -> None:
    tally: Counter[str] = Counter()
    for case in CASES:
        if case["keyword"] == keyword:
            _check(case, compiler, tally)
    for name, count in tally.items():
        record_property(name, count)
    assert tally["schemas compiled"] or tally["schemas refused"]


def _check(case: dict[str, Any], compiler: GrammarCompiler, tally: Counter[str]) -> None:
    make = _compiled(case["schema"], compiler)
    if isinstance(make, InvalidRequest):
        assert (make.code, make.field) == ("unsupported_schema", "form")
        assert any(name in make.message for name in _names(case["schema"])), make.message
        tally["schemas refused"] += 1
        return
    tally["schemas compiled"] += 1
    for instance in case["invalid"]:
        assert not accepts(make(), json.dumps(instance, ensure_ascii=False)), (case["what"], instance)
        tally["invalid instances kept out"] += 1
    tally["valid instances"] += len(case["valid"])
    tally["valid instances let in"] += sum(accepts(make(), json.dumps(value, ensure_ascii=False)) for value in case["valid"])
    validator = Draft202012Validator(case["schema"], format_checker=FORMATS)
    for seed in range(3):
        tally["walks"] += 1
        if (answer := random_answer(make(), Random(seed))) is not None:
            validator.validate(json.loads(answer))
            tally["walks that ended and validated"] += 1


def _compiled(schema: Any, compiler: GrammarCompiler) -> Callable[[], Constraint] | InvalidRequest:
    try:
        return compiler.compile(schema_grammar(schema))
    except InvalidRequest as refusal:
        return refusal


def _names(schema: Any) -> Iterator[str]:
    """Keywords and names of a schema; `false`, which has none; a keyword of the metaschema, to which some refer."""
    yield "$dynamicAnchor"
    if isinstance(schema, dict):
        yield from schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for each in schema:
            yield from _names(each)
    if schema is False:
        yield "schema is false"
