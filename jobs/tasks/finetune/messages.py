"""Messages of data as the engine's chat prompts take them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def chat_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """As `ChatPrompt` takes them: the arguments of calls as objects, developer's messages as the system's."""
    return [_message(message) for message in messages]


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    plain = {**message, "content": message.get("content") or ""}
    if plain["role"] == "developer":
        plain["role"] = "system"
    if plain.get("tool_calls"):
        plain["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": arguments_of(call["function"]["arguments"])}}
            for call in plain["tool_calls"]
        ]
    return plain


def arguments_of(text: str) -> Mapping[str, Any] | None:
    """None when they are no JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
