"""What a request says of tools, as the runtime takes it: the tools that the model sees, and which calls it may make. Pure."""

from __future__ import annotations

from typing import Any

from runtime.request import ToolChoice, ToolMode
from server.openai.errors import InvalidParam
from server.openai.json_values import check_json_value
from server.openai.near_misses import refuse_unknown
from server.openai.wire.tools import FunctionDefinition, ToolChoiceBody, ToolFields

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


def _chosen(tools: ToolDicts, asked: ToolChoiceBody | None, param: str, *, parallel: bool) -> tuple[ToolDicts | None, ToolChoice]:
    mode, names = _mode_and_names(asked)
    known = [tool["function"]["name"] for tool in tools]
    if not known and (names or mode is ToolMode.REQUIRED):
        raise InvalidParam(f"{param!r} asks for a call, but there are no tools: send them in 'tools'.", param=param)
    unknown = [name for name in names or () if name not in known]
    if unknown:
        there = ", ".join(known)
        raise InvalidParam(f"{param!r} names the function {unknown[0]!r}, which is not among the tools: {there}.", param=param)
    if not known or (asked is not None and asked.type == "none"):
        return None, ToolChoice()
    is_one_call = asked is not None and asked.type == "function"  # OpenAI: exactly one call of a function that is named
    return tools, ToolChoice(mode=mode, names=names, parallel=parallel and not is_one_call)


def _mode_and_names(asked: ToolChoiceBody | None) -> tuple[ToolMode, tuple[str, ...] | None]:
    if asked is None or asked.type in ("none", "auto"):
        return ToolMode.AUTO, None
    if asked.type == "function" and asked.function is not None:
        return ToolMode.REQUIRED, (asked.function.name,)
    if asked.type == "allowed_tools" and asked.allowed_tools is not None:
        names = dict.fromkeys(tool.function.name for tool in asked.allowed_tools.tools)
        return ToolMode(asked.allowed_tools.mode), tuple(names)
    return ToolMode.REQUIRED, None


def _tool(function: FunctionDefinition, param: str) -> dict[str, Any]:
    """As chat templates expect it; a schema that does not say so is one of an object."""
    parameters = {"type": "object", **(function.parameters or {"properties": {}})}
    check_json_value(parameters, param)
    fields = {"name": function.name, "description": function.description, "parameters": parameters, "strict": function.strict}
    return {"type": "function", "function": {name: value for name, value in fields.items() if value is not None}}
