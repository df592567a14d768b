"""Templates and grammars that would take all time or memory cost a process of their own, and one request."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from runtime.protocol.errors import InvalidRequest
from runtime.protocol.request import ChatPrompt, Grammar, GrammarKind
from runtime.text.constraints.grammar import to_lark
from runtime.text.constraints.json_schema import MAX_SCHEMAS
from runtime.text.preparation import ModelPreparation

pytestmark = pytest.mark.api

SECONDS = 0.4  # of computing, for what would never end
ends_in_time = pytest.mark.skipif(sys.platform == "win32", reason="the limit on computing is a signal")
GOOD = ChatPrompt(messages=[{"role": "user", "content": "good"}])
BAD = ChatPrompt(messages=[{"role": "user", "content": "bad"}])
DOUBLING = (
    "{% set ns = namespace(x=START) %}{% for i in range(40) %}{% set ns.x = ns.x OPERATOR ns.x %}{% endfor %}{{ ns.x | length }}"
)
ENDLESS = {
    "a macro that calls itself twice": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(90) }}",
    "nested loops": "{% set all = range(9999) | list %}" + "{% for a in all %}" * 3 + "{% endfor %}" * 3,
}
LARGE = {
    "texts joined by ~": DOUBLING.replace("START", "'a'").replace("OPERATOR", "~"),
    "texts joined by +": DOUBLING.replace("START", "'a'").replace("OPERATOR", "+"),
    "lists": DOUBLING.replace("START", "[1]").replace("OPERATOR", "+"),
    "a filter": "{{ messages[0].role | center(2000000000) | length }}",
    "replacing": "{% set x = 'a' * 60000 %}{{ x.replace('a', x) | length }}",
    "blocks": "{% set x %}{{ 'a' * 9000000 }}{% endset %}{% set x = [x] * 90 %}{{ x | join | length }}",
}
# How long the library takes doubles with every pattern.
EXPONENTIAL = {"allOf": [{"type": "string", "pattern": f"a.{{{50 + number}}}b"} for number in range(40)]}


def guarded(source: str) -> str:
    return "{% if messages[0].content == 'bad' %}" + source + "{% endif %}fine"


@pytest.fixture
def prepared() -> Iterator[list[ModelPreparation]]:
    made: list[ModelPreparation] = []
    yield made
    for preparation in made:
        preparation.close()


def refusal_of(preparation: ModelPreparation, prompt: ChatPrompt = BAD) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        preparation.render(prompt)
    assert (caught.value.field, caught.value.code) == ("conversation", "chat_template_error")
    return caught.value


def new(prepared: list[ModelPreparation], source: str | None, **options: Any) -> ModelPreparation:
    prepared.append(ModelPreparation(source, {"bos_token": "<s>"}, **options))
    return prepared[-1]


def lark_of(schema: object) -> str:
    return to_lark(Grammar(kind=GrammarKind.JSON_SCHEMA, source=json.dumps(schema)))


def test_it_renders_as_in_the_callers_process(prepared: list[ModelPreparation]) -> None:
    preparation = new(prepared, "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ m.n }}{% endfor %}")
    assert preparation.template_error is None
    assert preparation.render(ChatPrompt(messages=[{"content": "é😀", "n": 1}, {"content": "", "n": None}])) == "<s>é😀1None"


def test_a_template_that_raises_says_why_and_goes_on(prepared: list[ModelPreparation]) -> None:
    preparation = new(prepared, guarded("{{ raise_exception('No bad messages') }}"))
    assert "No bad messages" in refusal_of(preparation).message
    assert preparation.render(GOOD) == "fine"


@ends_in_time
@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS.keys())
def test_a_rendering_without_end_is_ended_and_the_next_one_served(prepared: list[ModelPreparation], source: str) -> None:
    preparation = new(prepared, guarded(source), compute_s=SECONDS)
    assert preparation.render(GOOD) == "fine"
    assert f"it computed for more than {SECONDS} s" in refusal_of(preparation).message
    assert preparation.render(GOOD) == "fine"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
@pytest.mark.parametrize("source", LARGE.values(), ids=LARGE.keys())
def test_a_rendering_that_takes_all_memory_is_refused_and_the_next_one_served(
    prepared: list[ModelPreparation], source: str
) -> None:
    preparation = new(prepared, guarded(source), compute_s=60.0)
    assert "more memory than it may take" in refusal_of(preparation).message
    assert preparation.render(GOOD) == "fine"


def test_a_template_that_does_not_compile_is_named_by_its_line(prepared: list[ModelPreparation]) -> None:
    preparation = new(prepared, "one\n{% for in messages %}\ntwo")
    assert preparation.template_error is not None
    assert "does not compile: line 2: expected" in preparation.template_error
    assert refusal_of(preparation, GOOD).code == "chat_template_error"
    assert preparation.grammar_complaint('start: "a"') is None


@ends_in_time
def test_a_compilation_without_end_is_ended_once(prepared: list[ModelPreparation]) -> None:
    preparation = new(prepared, "{{ messages }}" * 100_000, compute_s=SECONDS)
    assert preparation.template_error == f"the chat template cannot be compiled: it computed for more than {SECONDS} s"
    assert preparation.template_error in refusal_of(preparation, GOOD).message
    assert preparation.grammar_complaint('start: "a"') is None


def test_the_largest_schema_and_the_longest_prompt_pass(prepared: list[ModelPreparation]) -> None:
    preparation = new(prepared, "{% for m in messages %}{{ m.content }}{% endfor %}", compute_s=60.0)
    properties = {f"p{number}": {"enum": [number]} for number in range(MAX_SCHEMAS - 2)}
    assert preparation.grammar_complaint(lark_of({"type": "object", "properties": properties})) is None
    assert len(preparation.render(ChatPrompt(messages=[{"content": "é" * 8_000_000}, {"content": "x"}]))) == 8_000_001
    assert preparation.render(ChatPrompt(messages=[{"content": "x"}] * 280_000)) == "x" * 280_000


@ends_in_time
def test_a_grammar_is_tried_before_it_can_hang_anybody(prepared: list[ModelPreparation]) -> None:
    preparation = new(prepared, None, compute_s=SECONDS)
    assert preparation.template_error is None
    assert preparation.grammar_complaint(lark_of({"type": "integer"})) is None
    assert (
        preparation.grammar_complaint(lark_of(EXPONENTIAL))
        == f"it is too complex to compile (it computed for more than {SECONDS} s)"
    )
    assert preparation.grammar_complaint(lark_of({"type": "integer"})) is None
    assert "unknown name" in (preparation.grammar_complaint("start: nothing") or "")
