"""Conversations with tools, for chat templates: whose result is whose, and calls and results as plain turns. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from runtime.text.formats.protocol import Message, Tool


def function_of(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = tool["function"]
    return function


def calls_of(message: Message) -> list[dict[str, Any]]:
    return message.get("tool_calls") or []


def text_of(content: Any) -> str:
    """The text of a message's content: a text, parts, or nothing."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.get("text", "") for part in content if part.get("type") == "text")


def call_json(call: dict[str, Any], arguments_key: str = "arguments") -> str:
    """A call as models are shown it: {"name": ..., "arguments": {...}}."""
    function = call["function"]
    return as_json({"name": function["name"], arguments_key: function["arguments"]})


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def with_result_names(messages: Sequence[Message]) -> list[Message]:
    """Results with the names of the tools that gave them; no empty `tool_calls`, which some templates take for calls."""
    names = {call.get("id"): call["function"]["name"] for message in messages for call in calls_of(message)}
    return [_named(message, names) for message in messages]


def _named(message: Message, names: dict[str | None, str]) -> Message:
    if message["role"] == "tool" and not message.get("name") and message.get("tool_call_id") in names:
        return {**message, "name": names[message["tool_call_id"]]}
    if "tool_calls" in message and not message["tool_calls"]:
        return {key: value for key, value in message.items() if key != "tool_calls"}
    return message


def with_instructions(messages: Sequence[Message], instructions: str | None) -> list[Message]:
    """The instructions at the end of the system message, which is made where there is none. None: nothing to instruct."""
    if instructions is None:
        return list(messages)
    if messages and is_instruction(messages[0]):
        first, rest = messages[0], messages[1:]
        return [{**first, "content": f"{text_of(first.get('content'))}\n\n{instructions}"}, *rest]
    return [{"role": "system", "content": instructions}, *messages]


def is_instruction(message: Message) -> bool:
    return message.get("role") in ("system", "developer")


def in_user_turns(messages: Sequence[Message]) -> list[Message]:
    """For templates without a system role: moves instructions to the beginning of the user's next turn, as is usual with Gemma.

    A turn is made where none follows, or where it is not the user's; instructions after the user's last turn join that turn.
    """
    turns: list[Message] = []
    pending: list[str] = []
    for message in messages:
        if is_instruction(message):
            pending.append(text_of(message.get("content")))
            continue
        if pending and message.get("role") == "user":
            message = {**message, "content": _joined(*pending, text_of(message.get("content")))}
        elif pending:
            turns.append({"role": "user", "content": _joined(*pending)})
        pending = []
        turns.append(message)
    if pending and turns and turns[-1].get("role") == "user":
        turns[-1] = {**turns[-1], "content": _joined(text_of(turns[-1].get("content")), *pending)}
    elif pending:
        turns.append({"role": "user", "content": _joined(*pending)})
    return turns


def _joined(*texts: str) -> str:
    return "\n\n".join(filter(None, texts))


def as_plain_turns(
    messages: Sequence[Message],
    *,
    write_calls: Callable[[list[dict[str, Any]]], str],
    write_result: Callable[[str, str], str],
    result_role: str = "user",
) -> list[Message]:
    """Calls as text of the assistant, results as turns of `result_role`; results that follow each other share a turn.

    write_calls: the calls of one message as text. write_result: a tool's name and what it answered, as text.
    """
    turns: list[Message] = []
    previous_role = None
    for message in with_result_names(messages):
        if message["role"] == "tool":
            result = write_result(message.get("name", ""), text_of(message.get("content")))
            if previous_role == "tool":
                turns[-1]["content"] += f"\n{result}"
            else:
                turns.append({"role": result_role, "content": result})
        elif calls := calls_of(message):
            text = "\n".join(filter(None, (text_of(message.get("content")), write_calls(calls))))
            turns.append({**{key: value for key, value in message.items() if key != "tool_calls"}, "content": text})
        else:
            turns.append(message)
        previous_role = message["role"]
    return turns
