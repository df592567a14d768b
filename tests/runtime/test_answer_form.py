"""What an answer must look like, from a request: which grammar is compiled, around which thought, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from runtime.engines.fake import EOS, VOCAB_SIZE, ByteTokenizer
from runtime.protocol.errors import InvalidRequest
from runtime.protocol.request import ChatPrompt, Grammar, GrammarKind, Prompt, SamplingParams, TextPrompt, ToolChoice, ToolMode
from runtime.text.answer_form import AnswerForm, AnswerForms
from runtime.text.chat_prompts import ChatFormats, ChatPrompts
from runtime.text.chat_template import ChatTemplate
from runtime.text.constraints.compiler import GrammarCompiler
from runtime.text.constraints.constraint import Constraint
from runtime.text.formats.recognition import reasoning_format_by_name, tool_format_by_name

THINK = reasoning_format_by_name("think")
GENERIC = tool_format_by_name("generic")
HELLO = ChatPrompt(messages=[{"role": "user", "content": "Hello"}])
YES_OR_NO = Grammar(kind=GrammarKind.CHOICE, source=json.dumps(["yes", "no"]))
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
WITH_TOOLS = msgspec.structs.replace(HELLO, tools=[WEATHER])
REQUIRED = msgspec.structs.replace(WITH_TOOLS, tool_choice=ToolChoice(mode=ToolMode.REQUIRED))
SHOWING = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"


def form(
    prompt: Prompt, text: str = "Hello", *, formats: ChatFormats | None = None, constrains: bool = True, **requested: Any
) -> AnswerForm:
    tokenizer = ByteTokenizer()
    compiler = GrammarCompiler(tokenizer, {EOS}, VOCAB_SIZE) if constrains else None
    formats = formats or ChatFormats(tools=GENERIC, reasoning=THINK)
    forms = AnswerForms(tokenizer, formats, compiler, vocab_size=VOCAB_SIZE, eos_ids=frozenset({EOS}))
    return forms.form(prompt, text, SamplingParams(**requested))


def accepts(constraint: Constraint | None, answer: str) -> bool:
    """Whether an answer may be this text, and end there."""
    assert constraint is not None
    for token in answer.encode():
        mask = constraint.allowed()
        if constraint.is_complete or (mask is not None and not mask[token // 8] >> token % 8 & 1):
            return False
        constraint.accept(token)
    if constraint.is_complete:
        return True
    mask = constraint.allowed()
    return mask is None or bool(mask[EOS // 8] >> EOS % 8 & 1)


def test_nothing_requested_nothing_held() -> None:
    assert form(TextPrompt(text="x")) == AnswerForm()
    assert form(HELLO, formats=ChatFormats(tools=GENERIC)) == AnswerForm()


def test_a_grammar_holds_the_answer() -> None:
    for prompt in (HELLO, TextPrompt(text="x")):
        assert accepts(form(prompt, grammar=YES_OR_NO).constraint, "yes")
        assert not accepts(form(prompt, grammar=YES_OR_NO).constraint, "maybe")


def test_required_calls_are_held_to_the_tools_and_text_is_not_allowed() -> None:
    assert not accepts(form(REQUIRED).constraint, "It rains.")
    assert accepts(form(WITH_TOOLS).constraint, "It rains.")


def test_a_required_call_beside_a_form_of_the_answer_is_a_call() -> None:
    assert not accepts(form(REQUIRED, grammar=YES_OR_NO).constraint, "yes")


CALL = '{"tool_calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}'


@pytest.mark.parametrize("family", ["generic", "hermes", "smollm", "mistral"])
def test_with_a_form_and_calls_at_will_the_answer_is_one_of_both(family: str) -> None:
    formats = ChatFormats(tools=tool_format_by_name(family))
    for grammar, good, bad in (
        (YES_OR_NO, "yes", "maybe"),
        (Grammar(kind=GrammarKind.REGEX, source="[0-9]+"), "42", "x"),
        (Grammar(kind=GrammarKind.JSON_SCHEMA, source=json.dumps(CITY)), '{"city": "Rome"}', '{"town": "Rome"}'),
    ):
        assert accepts(form(WITH_TOOLS, grammar=grammar, formats=formats).constraint, good)
        assert not accepts(form(WITH_TOOLS, grammar=grammar, formats=formats).constraint, bad)
    if family == "generic":
        assert accepts(form(WITH_TOOLS, grammar=YES_OR_NO, formats=formats).constraint, CALL)


def test_a_grammar_of_ones_own_and_calls_at_will_exclude_each_other() -> None:
    with pytest.raises(InvalidRequest, match="at will") as caught:
        form(WITH_TOOLS, grammar=Grammar(kind=GrammarKind.LARK, source='start: "a"'))
    assert caught.value.field == "form"


def test_a_form_that_cannot_be_followed_is_named_also_beside_tools() -> None:
    with pytest.raises(InvalidRequest, match='"not"') as caught:
        form(WITH_TOOLS, grammar=Grammar(kind=GrammarKind.JSON_SCHEMA, source='{"not": {}}'))
    assert caught.value.field == "form"


BROKEN = {"type": "object", "properties": {"city": {"type": "string", "pattern": "("}}}


def test_a_tool_whose_schema_makes_no_grammar_takes_any_object_unless_it_is_strict() -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": BROKEN}}
    assert accepts(form(msgspec.structs.replace(REQUIRED, tools=[tool])).constraint, CALL)
    strict = {"type": "function", "function": {"name": "weather", "parameters": BROKEN, "strict": True}}
    with pytest.raises(InvalidRequest) as caught:
        form(msgspec.structs.replace(REQUIRED, tools=[strict]))
    assert caught.value.field == "tools"


@pytest.mark.parametrize("requested", [{"min_tokens": 2}, {"ignore_eos": True}])
def test_what_moves_the_end_is_refused_beside_a_grammar(requested: dict[str, Any]) -> None:
    for prompt in (HELLO, REQUIRED):
        with pytest.raises(InvalidRequest, match="where the answer ends") as caught:
            form(prompt, grammar=YES_OR_NO, **requested)
        assert caught.value.field == next(iter(requested))


def test_an_engine_without_grammars_refuses_what_needs_one_and_lets_the_model_call_at_will() -> None:
    for prompt, grammar, field in ((HELLO, YES_OR_NO, "form"), (REQUIRED, None, "tool_choice")):
        with pytest.raises(InvalidRequest, match="another engine") as caught:
            form(prompt, grammar=grammar, constrains=False)
        assert (caught.value.field, caught.value.code) == (field, "unsupported_parameter")
    assert form(WITH_TOOLS, formats=ChatFormats(tools=GENERIC), constrains=False) == AnswerForm()


# ---- thoughts ----


def test_only_answers_to_messages_have_thoughts() -> None:
    assert form(HELLO).thought is not None
    assert form(TextPrompt(text="x"), grammar=YES_OR_NO).thought is None
    assert form(HELLO, formats=ChatFormats(tools=GENERIC)).thought is None


def test_a_prompt_that_opens_the_thought_is_noticed() -> None:
    assert form(HELLO, "Hello<think>\n").in_thought
    assert not form(HELLO, "Hello<think>\nhm</think>").in_thought


def test_a_grammar_waits_for_the_thought() -> None:
    assert accepts(form(HELLO, "<think>", grammar=YES_OR_NO).constraint, "maybe</think>yes")
    assert not accepts(form(HELLO, "<think>", grammar=YES_OR_NO).constraint, "yes")


@pytest.mark.parametrize(("effort", "budget"), [("none", 0), ("minimal", 256), ("low", 1024), ("medium", 4096)])
def test_an_effort_is_a_budget_unless_one_is_given(effort: str, budget: int) -> None:
    for requested, expected in (({}, budget), ({"thinking_budget": 7}, 7)):
        thought = form(msgspec.structs.replace(HELLO, reasoning_effort=effort), "<think>", **requested).thought
        assert thought is not None
        while not (mask := thought.allowed()) is not None:
            thought.accept(ord("a"))
        assert mask[ord("\n") // 8] == 1 << ord("\n") % 8  # the closing begins
        assert thought.num_tokens == expected


@pytest.mark.parametrize("effort", [None, "high", "xhigh"])
def test_no_effort_and_much_of_it_limit_nothing(effort: str | None) -> None:
    thought = form(msgspec.structs.replace(HELLO, reasoning_effort=effort), "<think>").thought
    assert thought is not None
    for _ in range(5000):
        thought.accept(ord("a"))
    assert thought.forced() == []


def test_a_budget_without_a_thought_is_refused() -> None:
    for prompt, formats in ((HELLO, ChatFormats(tools=GENERIC)), (TextPrompt(text="x"), ChatFormats(reasoning=THINK))):
        with pytest.raises(InvalidRequest) as caught:
            form(prompt, formats=formats, thinking_budget=5)
        assert (caught.value.field, caught.value.code) == ("thinking_budget", "unsupported_parameter")


# ---- prompts ----


def rendered(prompt: ChatPrompt, template: str = SHOWING, **formats: Any) -> str:
    return ChatPrompts(ChatTemplate(template, {}), ChatFormats(**formats)).text(prompt)


def test_tools_go_beside_the_messages_of_templates_that_write_them_and_else_into_them() -> None:
    native = rendered(WITH_TOOLS, tools=GENERIC, is_native=True)
    assert native.endswith(json.dumps([WEATHER]))
    described = rendered(WITH_TOOLS, tools=GENERIC)
    assert "weather" in described
    assert not described.endswith(json.dumps([WEATHER]))


def test_without_tools_messages_stay_as_they_are() -> None:
    assert rendered(HELLO, tools=GENERIC) == "user:Hello;"


def test_tools_are_refused_by_models_that_have_no_format_for_them() -> None:
    with pytest.raises(InvalidRequest, match="tool_format") as caught:
        rendered(WITH_TOOLS)
    assert caught.value.field == "tools"


def test_an_effort_is_passed_to_the_template_and_what_the_request_says_itself_wins() -> None:
    template = "{{ enable_thinking }} {{ reasoning_effort }}"
    assert rendered(msgspec.structs.replace(HELLO, reasoning_effort="low"), template, reasoning=THINK) == "True low"
    assert rendered(msgspec.structs.replace(HELLO, reasoning_effort="none"), template) == "False none"
    own = msgspec.structs.replace(HELLO, reasoning_effort="low", template_kwargs={"enable_thinking": "mine"})
    assert rendered(own, template, reasoning=THINK) == "mine low"


def test_an_effort_is_refused_by_models_that_do_not_reason() -> None:
    with pytest.raises(InvalidRequest) as caught:
        rendered(msgspec.structs.replace(HELLO, reasoning_effort="low"))
    assert (caught.value.field, caught.value.code) == ("reasoning_effort", "unsupported_parameter")
