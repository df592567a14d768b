"""Whether messages are a conversation that a model can learn from. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

_ROLES = ("system", "developer", "user", "assistant", "tool")
Wrong = tuple[str, str]  # (message, code)


def conversation_problem(messages: Any, tools: Any, *, ends_with_assistant: bool = True) -> Wrong | None:
    """The first thing wrong, or None. Roles: system at the beginning; tool after a call; no two users or assistants in a row."""
    if not isinstance(messages, list) or not messages:
        return "Its messages must be a list that is not empty.", "empty"
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) and "function" in tool for tool in tools)):
        return 'Its tools must be a list of {"type": "function", "function": ...}.', "wrong_tools"
    before = ""
    for number, message in enumerate(messages, 1):
        problem = _message_problem(message) or _order_problem(message["role"], before)
        if problem is not None:
            return f"Message {number} {problem[0]}", problem[1]
        before = message["role"]
    roles = [message["role"] for message in messages]
    if ends_with_assistant and "assistant" not in roles:
        return "It has no assistant turn: there is nothing to learn.", "no_assistant_turn"
    if ends_with_assistant and roles[-1] != "assistant":
        return "It must end with an assistant turn, which is what is learned.", "wrong_roles"
    if not ends_with_assistant and roles[-1] not in ("user", "tool"):
        return "The messages before the answers must end with the user's.", "wrong_roles"
    return None


def with_arguments_as_text(messages: Any) -> Any:
    """Arguments of calls that are objects, as JSON text, which is how OpenAI has them; everything else as it is."""
    if not isinstance(messages, list) or not any(isinstance(each, dict) and each.get("tool_calls") for each in messages):
        return messages
    return [
        {**each, "tool_calls": [_call(call) for call in each["tool_calls"]]}
        if isinstance(each, dict) and isinstance(each.get("tool_calls"), list)
        else each
        for each in messages
    ]


def _call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), dict):
        return call
    return {**call, "function": {**function, "arguments": msgspec.json.encode(function["arguments"]).decode()}}


def _message_problem(message: Any) -> Wrong | None:
    if not isinstance(message, dict):
        return "is no object.", "wrong_message"
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls")
    if role not in _ROLES:
        return f"has no role that is known; roles are {', '.join(_ROLES)}.", "wrong_roles"
    if calls is not None and (role != "assistant" or not _are_calls(calls)):
        what = "has tool_calls that are no assistant's functions with a name, and arguments as an object or as its JSON text."
        return what, "wrong_tools"
    if content is not None and not isinstance(content, str):
        return "has a content that is no text.", "wrong_content"
    if not (content and content.strip()) and not calls and role != "tool":
        return "is empty.", "empty"
    return None


def _are_calls(calls: Any) -> bool:
    return isinstance(calls, list) and all(
        isinstance(call, dict)
        and isinstance(call.get("function"), dict)
        and isinstance(call["function"].get("name"), str)
        and _is_object(call["function"].get("arguments"))
        for call in calls
    )


def _is_object(arguments: Any) -> bool:
    try:
        return isinstance(arguments, str) and isinstance(msgspec.json.decode(arguments), dict)
    except msgspec.DecodeError:
        return False


def _order_problem(role: str, before: str) -> Wrong | None:
    if role in ("system", "developer") and before:
        return "is a system message, which must come first.", "wrong_roles"
    if role == "assistant" and before in ("", "system", "developer", "assistant"):
        return "is the assistant's, but there is no user's before it.", "wrong_roles"
    if role == "user" and before == "user":
        return "is the user's, and so is the one before it.", "wrong_roles"
    if role == "tool" and before not in ("assistant", "tool"):
        return "is a tool's result, but there is no call before it.", "wrong_roles"
    return None
