"""Reasoning and real grammars, through the engine: the reasoning's share of usage, and answers of the requested form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtime.protocol.events import FinishReason
from runtime.protocol.request import ChatPrompt, Grammar, GrammarKind, ToolChoice, ToolMode
from tests.doubles.engine_bench import fake_bench

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
GREET = {"type": "function", "function": {"name": "greet", "parameters": NOTHING}}


def schema_of(schema: Any) -> Grammar:
    return Grammar(kind=GrammarKind.JSON_SCHEMA, source=json.dumps(schema))


def test_thoughts_are_counted_and_shown_with_their_tags() -> None:
    outcome = fake_bench(reasoning_format="think").answer("[[reply: <think>hm</think>Yes]]")
    assert outcome.text == "<think>hm</think>Yes"
    assert outcome.end.usage.reasoning_tokens == len("<think>hm</think>")
    assert fake_bench().answer("[[reply: <think>hm</think>Yes]]").end.usage.reasoning_tokens == 0


def test_a_budget_closes_the_thought_and_the_answer_goes_on() -> None:
    outcome = fake_bench(reasoning_format="think").answer("[[endless]]", max_tokens=100, thinking_budget=3)
    assert outcome.end.usage.reasoning_tokens == 0  # it does not think
    outcome = fake_bench(reasoning_format="think").answer("[[reply: <think>" + "y" * 90 + "]]", thinking_budget=10)
    assert outcome.text == "<think>yyy\n</think>\n\n" + "y" * (90 - 3 - len("\n</think>\n\n"))
    assert outcome.end.usage.reasoning_tokens == len("<think>yyy\n</think>\n\n")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_follows_its_schema_whatever_the_model_says(temperature: float) -> None:
    outcome = fake_bench().answer('[[reply: {"name": "Ada"]]', grammar=schema_of(SCHEMA), temperature=temperature, seed=1)
    answer = json.loads(outcome.text)
    assert answer["name"] == "Ada"
    assert isinstance(answer["age"], int)
    assert outcome.end.reason is FinishReason.STOP


def test_an_answer_of_a_form_is_the_same_alone_and_among_others() -> None:
    words = Grammar(kind=GrammarKind.REGEX, source="[a-z]{3} [0-9]{2}; [a-z]{3} [0-9]{2}")
    alone = fake_bench().answer("[[reply: abc 12]]", grammar=words, temperature=1.0, seed=5)
    bench = fake_bench(num_slots=8)
    numbers = [bench.submit("[[reply: abc 12]]", grammar=words, temperature=1.0, seed=5) for _ in range(4)]
    free = [bench.submit("Hello") for _ in range(4)]
    bench.run()
    assert {bench.outcomes[number].text for number in numbers} == {alone.text}
    assert {bench.outcomes[number].text for number in free} == {"You said: Hello"}


def test_a_required_call_is_a_call_whatever_the_model_says() -> None:
    prompt = ChatPrompt(
        messages=[{"role": "user", "content": "[[reply: No, never]]"}],
        tools=[GREET],
        tool_choice=ToolChoice(mode=ToolMode.REQUIRED, parallel=False),
    )
    outcome = fake_bench().answer(prompt, max_tokens=200, temperature=0)
    assert outcome.end.reason is FinishReason.STOP
    assert '"greet"' in outcome.text


def test_a_prediction_within_a_schema_is_accepted() -> None:
    text = '{"name": "Ada Lovelace, Countess", "age": 36}'
    outcome = fake_bench().answer(f"[[reply: {text}]]", grammar=schema_of(SCHEMA), prediction=text, temperature=0)
    assert outcome.text == text
    assert outcome.end.usage.accepted_prediction_tokens > 10


def test_the_model_says_which_formats_it_has() -> None:
    assert fake_bench().engine.info.tool_format == "generic"
    assert fake_bench(tool_format="hermes", reasoning_format="think").engine.info.reasoning_format == "think"
    assert fake_bench(tool_format="none").engine.info.tool_format is None
    with pytest.raises(ValueError, match="tool_format"):
        fake_bench(tool_format="unheard-of")
