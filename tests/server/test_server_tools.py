"""Tools and the choice among them, as requests say them and as the runtime takes them. Without HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from runtime.protocol.request import ChatPrompt, ToolChoice, ToolMode
from server.dialects.openai.errors import InvalidParam
from server.dialects.openai.translate import translate_chat
from server.dialects.openai.wire.chat import ChatRequest
from tests.doubles.live_server import chat_body

pytestmark = pytest.mark.unit

ADD = {"name": "add", "description": "adds", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
NOW = {"name": "now"}
TOOLS = [{"type": "function", "function": ADD}, {"type": "function", "function": NOW}]


def prompt_of(**fields: Any) -> ChatPrompt:
    prompt = translate_chat(ChatRequest(**chat_body("hi", **fields))).prompts[0]
    assert isinstance(prompt, ChatPrompt)
    return prompt


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]}}


def test_tools_are_passed_as_templates_expect_them() -> None:
    tools = prompt_of(tools=[{"type": "function", "function": ADD | {"strict": True, "returns": {}}}, TOOLS[1]]).tools
    assert tools == [
        {"type": "function", "function": ADD | {"strict": True}},
        {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
    ]
    assert list(tools[0]["function"]) == ["name", "description", "parameters", "strict"]


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, ToolChoice()),
        ({"tool_choice": "auto"}, ToolChoice()),
        ({"parallel_tool_calls": False}, ToolChoice(parallel=False)),
        ({"tool_choice": "required"}, ToolChoice(mode=ToolMode.REQUIRED)),
        ({"tool_choice": named("now")}, ToolChoice(mode=ToolMode.REQUIRED, names=("now",), parallel=False)),
        ({"tool_choice": allowed("auto", "now", "now")}, ToolChoice(names=("now",))),
        ({"tool_choice": allowed("required", "now", "add")}, ToolChoice(mode=ToolMode.REQUIRED, names=("now", "add"))),
    ],
)
def test_choices(fields: dict[str, Any], choice: ToolChoice) -> None:
    prompt = prompt_of(tools=TOOLS, **fields)
    assert prompt.tool_choice == choice
    assert prompt.tools is not None
    assert len(prompt.tools) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": TOOLS, "tool_choice": "none"},
        {"tools": []},
        {"tools": [], "tool_choice": "auto"},
        {"tool_choice": "none"},
        {"parallel_tool_calls": True},
        {"functions": [ADD], "function_call": "none"},
        {"function_call": "auto"},
    ],
)
def test_a_request_without_calls_has_no_tools(fields: dict[str, Any]) -> None:
    assert prompt_of(**fields).tools is None


def test_functions_are_tools_of_which_one_is_called() -> None:
    prompt = prompt_of(functions=[ADD, NOW])
    assert prompt.tools == prompt_of(tools=TOOLS).tools
    assert prompt.tool_choice == ToolChoice(parallel=False)
    assert prompt_of(functions=[ADD], function_call="auto").tool_choice == ToolChoice(parallel=False)
    forced = prompt_of(functions=[ADD], function_call={"name": "add"}).tool_choice
    assert forced == ToolChoice(mode=ToolMode.REQUIRED, names=("add",), parallel=False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": named("add")}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": named("nobody")}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": allowed("auto", "add", "nobody")}, "tool_choice"),
        ({"function_call": {"name": "add"}}, "function_call"),
        ({"functions": [ADD], "function_call": {"name": "nobody"}}, "function_call"),
        ({"tools": TOOLS, "functions": [ADD]}, "functions"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"maximum": 2**64}}}]},
            "tools.0.function.parameters",
        ),
    ],
)
def test_choices_of_what_is_not_there(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidParam) as caught:
        prompt_of(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "location"),
    [
        ({"tools": {}}, ("tools",)),
        ({"tools": TOOLS * 65}, ("tools",)),
        ({"tools": [TOOLS[0], TOOLS[0]]}, ("tools",)),
        ({"tools": [{"type": "function"}]}, ("tools", 0, "function")),
        ({"tools": [{"function": ADD}]}, ("tools", 0, "type")),
        ({"tools": [{"type": "retrieval", "function": ADD}]}, ("tools", 0, "type")),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, ("tools", 0, "function", "name")),
        ({"tools": [{"type": "function", "function": {"name": "a" * 65}}]}, ("tools", 0, "function", "name")),
        ({"tools": [{"type": "function", "function": {"name": "a\n"}}]}, ("tools", 0, "function", "name")),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]},
            ("tools", 0, "function", "parameters"),
        ),
        ({"functions": [ADD, ADD]}, ("functions",)),
        ({"tool_choice": "perhaps"}, ("tool_choice", "type")),
        ({"tool_choice": {}}, ("tool_choice", "type")),
        ({"tool_choice": 5}, ("tool_choice",)),
        ({"tool_choice": {"type": "function"}}, ("tool_choice",)),
        ({"tool_choice": allowed("auto")}, ("tool_choice", "allowed_tools", "tools")),
        ({"tool_choice": allowed("never", "add")}, ("tool_choice", "allowed_tools", "mode")),
        ({"function_call": "required"}, ("function_call",)),
    ],
)
def test_what_is_no_tool_is_named(fields: dict[str, Any], location: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        ChatRequest(**chat_body("hi", **fields))
    assert caught.value.errors()[0]["loc"] == location
