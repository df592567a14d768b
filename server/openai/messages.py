"""A conversation as chat templates take it: `runtime.request.ChatPrompt.messages`. Pure; knows no template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.openai.errors import InvalidParam
from server.openai.json_values import check_json_value
from server.openai.wire.messages import CalledFunction, Message

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
            "message before it, or mend the tool_call_id.",
            param=f"messages.{index}.tool_call_id",
        )

    def _answered_by_name(self, index: int, name: str) -> str:
        if name in self._last_id:
            return self._last_id[name]
        raise InvalidParam(
            f"Message {index} is the result of a function that no earlier message of the assistant has called: send the message "
            "with that function_call before it, or mend the name.",
            param=f"messages.{index}.name",
        )
