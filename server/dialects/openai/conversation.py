"""A request's messages, tools and tool choice as the runtime takes them. Pure; knows no chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from runtime.protocol.request import ToolChoice, ToolMode
from server.dialects.openai.errors import InvalidParam
from server.dialects.openai.near_misses import refuse_unknown
from server.dialects.openai.wire.messages import CalledFunction, Message
from server.dialects.openai.wire.tools import FunctionDefinition, ToolChoiceBody, ToolFields
from server.http.json_route import JsonLimits, TooComplex, measure

MAX_DEPTH = 100
_LIMITS = JsonLimits(depth=MAX_DEPTH)


def check_json_value(value: Any, param: str) -> None:
    """Raises InvalidParam for a whole number beyond 64 bits, and for what is nested more than MAX_DEPTH deep."""
    try:
        msgspec.msgpack.encode(value)
    except OverflowError:
        message = f"{param!r} holds a whole number beyond 64 bits; send it as text, or leave it out."
        raise InvalidParam(message, param=param) from None
    try:
        measure(msgspec.json.encode(value), _LIMITS)
    except TooComplex as error:
        raise InvalidParam(f"{param!r} {error}.", param=param) from None


Turn = dict[str, Any]


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    """Raises InvalidParam for a result of a call that no earlier turn has made."""
    conversation = _Conversation()
    return [conversation.turn(index, message) for index, message in enumerate(messages)]


class _Conversation:
    """The calls made so far, as a result may answer them. Calls of the older form have no id: they get one by their place."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._last_id: dict[str, str] = {}  # by the function's name, for results of the older form

    def turn(self, index: int, message: Message) -> Turn:
        """What the client left out is left out, but for the content."""
        turn: Turn = {"role": "system" if message.role == "developer" else message.role, "content": message.text}
        reasoning = message.reasoning_content if message.reasoning_content is not None else message.reasoning
        extras = {"name": message.name, "reasoning_content": reasoning, "tool_calls": self._calls(index, message) or None}
        turn |= {name: value for name, value in extras.items() if value is not None}
        if message.role == "tool":
            turn["tool_call_id"] = self._answered(index, message.tool_call_id or "")
        elif message.role == "function":
            turn |= {"role": "tool", "tool_call_id": self._answered_by_name(index, message.name or "")}
        return turn

    def _calls(self, index: int, message: Message) -> list[Turn]:
        called = [(call.id, call.function, f"tool_calls.{i}.function") for i, call in enumerate(message.tool_calls or ())]
        if message.function_call is not None:
            called.append((f"call_{index}", message.function_call, "function_call"))
        return [self._call(id_, function, f"messages.{index}.{where}") for id_, function, where in called]

    def _call(self, id_: str, function: CalledFunction, where: str) -> Turn:
        check_json_value(function.arguments, f"{where}.arguments")
        self._ids.add(id_)
        self._last_id[function.name] = id_
        return {"id": id_, "type": "function", "function": {"name": function.name, "arguments": function.arguments}}

    def _answered(self, index: int, id_: str) -> str:
        if id_ in self._ids:
            return id_
        raise InvalidParam(
            f"Message {index} is the result of a call that no earlier message of the assistant has in its tool_calls: send that "
            "message before it, or correct the tool_call_id.",
            param=f"messages.{index}.tool_call_id",
        )

    def _answered_by_name(self, index: int, name: str) -> str:
        if name in self._last_id:
            return self._last_id[name]
        raise InvalidParam(
            f"Message {index} is the result of a function that no earlier message of the assistant has called: send the message "
            "with that function_call before it, or correct the name.",
            param=f"messages.{index}.name",
        )


ToolDicts = list[dict[str, Any]]


def tools_of(request: ToolFields) -> tuple[ToolDicts | None, ToolChoice]:
    """None: no calls, whether for want of tools or by choice. Raises InvalidParam for a choice of what is not there."""
    if request.tools and request.functions:
        raise InvalidParam("'tools' and 'functions' exclude each other: send tools only.", param="functions")
    if request.functions and request.tool_choice is not None:
        raise InvalidParam("'tool_choice' chooses among 'tools', but there are 'functions': send tools.", param="functions")
    _refuse_unknown(request)
    if request.functions:
        tools = [_tool(function, f"functions.{i}.parameters") for i, function in enumerate(request.functions)]
        return _chosen(tools, request.function_call, "function_call", parallel=False)
    if request.function_call is not None and request.function_call.type == "function":
        raise InvalidParam("'function_call' names a function, but 'functions' has none: send them.", param="function_call")
    tools = [_tool(tool.function, f"tools.{i}.function.parameters") for i, tool in enumerate(request.tools or ())]
    return _chosen(tools, request.tool_choice, "tool_choice", parallel=request.parallel_tool_calls is not False)


def _refuse_unknown(request: ToolFields) -> None:
    for index, tool in enumerate(request.tools or ()):
        refuse_unknown(tool, f"tools.{index}")
        refuse_unknown(tool.function, f"tools.{index}.function")
    for index, function in enumerate(request.functions or ()):
        refuse_unknown(function, f"functions.{index}")
    if request.function_call is not None and request.function_call.function is not None:
        refuse_unknown(request.function_call.function, "function_call")
    if request.tool_choice is not None:
        _refuse_unknown_choice(request.tool_choice)


def _refuse_unknown_choice(choice: ToolChoiceBody) -> None:
    within = "tool_choice"
    refuse_unknown(choice, within)
    if choice.function is not None:
        refuse_unknown(choice.function, f"{within}.function")
    if choice.allowed_tools is not None:
        refuse_unknown(choice.allowed_tools, f"{within}.allowed_tools")
        for index, named in enumerate(choice.allowed_tools.tools):
            refuse_unknown(named, f"{within}.allowed_tools.tools.{index}")
            refuse_unknown(named.function, f"{within}.allowed_tools.tools.{index}.function")


def _chosen(
    tools: ToolDicts, requested: ToolChoiceBody | None, param: str, *, parallel: bool
) -> tuple[ToolDicts | None, ToolChoice]:
    mode, names = _mode_and_names(requested)
    known = [tool["function"]["name"] for tool in tools]
    if not known and (names or mode is ToolMode.REQUIRED):
        raise InvalidParam(f"{param!r} requires a call, but there are no tools: send them in 'tools'.", param=param)
    unknown = [name for name in names or () if name not in known]
    if unknown:
        there = ", ".join(known)
        raise InvalidParam(f"{param!r} names the function {unknown[0]!r}, which is not among the tools: {there}.", param=param)
    if not known or (requested is not None and requested.type == "none"):
        return None, ToolChoice()
    is_one_call = requested is not None and requested.type == "function"  # OpenAI: exactly one call of a function that is named
    return tools, ToolChoice(mode=mode, names=names, parallel=parallel and not is_one_call)


def _mode_and_names(requested: ToolChoiceBody | None) -> tuple[ToolMode, tuple[str, ...] | None]:
    if requested is None or requested.type in ("none", "auto"):
        return ToolMode.AUTO, None
    if requested.type == "function" and requested.function is not None:
        return ToolMode.REQUIRED, (requested.function.name,)
    if requested.type == "allowed_tools" and requested.allowed_tools is not None:
        names = dict.fromkeys(tool.function.name for tool in requested.allowed_tools.tools)
        return ToolMode(requested.allowed_tools.mode), tuple(names)
    return ToolMode.REQUIRED, None


def _tool(function: FunctionDefinition, param: str) -> dict[str, Any]:
    """The tool as chat templates expect it; a schema without a type is that of an object."""
    parameters = {"type": "object", **(function.parameters or {"properties": {}})}
    check_json_value(parameters, param)
    fields = {"name": function.name, "description": function.description, "parameters": parameters, "strict": function.strict}
    return {"type": "function", "function": {name: value for name, value in fields.items() if value is not None}}
