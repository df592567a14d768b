"""What a line of training data means: its columns, in each of the forms that are known, as frozen values. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

import msgspec

from jobs.datasets.conversations import conversation_problem, with_arguments_as_text

Message = Mapping[str, Any]
_PAIRS = (("prompt", "completion"), ("input", "output"), ("question", "answer"), ("instruction", "response"))
_CHAT = {"messages", "tools", "parallel_tool_calls", "functions"}
_PREFERENCE = {"input", "preferred_output", "non_preferred_output"}
_CHOICE = {"prompt", "chosen", "rejected", "tools"}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Chat messages whose assistant turns are learned. tools: as the chat API has them. line: from 1."""

    line: int
    messages: Sequence[Message]
    tools: Sequence[Message] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """Plain text: completion is learned, prompt is not; an empty prompt means that all is learned."""

    line: int
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to the same messages, of which the first is preferred."""

    line: int
    messages: Sequence[Message]
    chosen: str
    rejected: str
    tools: Sequence[Message] = ()


Example = Conversation | Completion | Preference


class BadLine(ValueError):
    """message: what is wrong with the line. code: for programs."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def example_of(line: int, row: Mapping[str, Any], objective: str, text_template: str | None) -> Example:
    if text_template is not None:
        return Completion(line, "", _filled(text_template, row))
    if objective == "dpo":
        return _preference(line, row)
    if "messages" in row:
        _known(row, _CHAT)
        return _conversation(line, row)
    for prompt, completion in _PAIRS:
        if prompt in row and completion in row:
            _known(row, {prompt, completion})
            return Completion(line, _text(row, prompt, may_be_empty=True), _text(row, completion))
    raise BadLine("It has neither messages nor prompt and completion; for other columns give a text_template.", "unknown_form")


def _conversation(line: int, row: Mapping[str, Any]) -> Conversation:
    messages = with_arguments_as_text(row["messages"])
    problem = conversation_problem(messages, row.get("tools"))
    if problem is not None:
        raise BadLine(*problem)
    return Conversation(line, messages, row.get("tools") or ())


def _preference(line: int, row: Mapping[str, Any]) -> Preference:
    if set(row) >= _PREFERENCE:
        _known(row, _PREFERENCE)
        given = row["input"] if isinstance(row["input"], dict) else {}
        messages, tools = given.get("messages"), given.get("tools")
        chosen, rejected = (_answer(row[name], name) for name in ("preferred_output", "non_preferred_output"))
    elif {"prompt", "chosen", "rejected"} <= set(row):
        _known(row, _CHOICE)
        messages = [{"role": "user", "content": row["prompt"]}] if isinstance(row["prompt"], str) else row["prompt"]
        tools = row.get("tools")
        chosen, rejected = (_answer(row[name], name) for name in ("chosen", "rejected"))
    else:
        forms = "neither input, preferred_output and non_preferred_output nor prompt, chosen and rejected"
        raise BadLine(f"It has {forms}.", "unknown_form")
    messages = with_arguments_as_text(messages)
    problem = conversation_problem(messages, tools, ends_with_assistant=False)
    if problem is not None or messages is None:
        raise BadLine(*problem or ("It has no messages.", "empty"))
    if chosen == rejected:
        raise BadLine("Both answers are the same: there is nothing to prefer.", "no_preference")
    return Preference(line, messages, chosen, rejected, tools or ())


def _answer(value: Any, name: str) -> str:
    """A text, or a list with one assistant message."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and value[0].get("role") == "assistant":
        value = value[0].get("content")
    if not isinstance(value, str) or not value.strip():
        raise BadLine(f"Its {name} must be a text, or a list with one assistant message that has one.", "empty")
    return value


def _known(row: Mapping[str, Any], names: set[str]) -> None:
    unknown = sorted(set(row) - names)
    if unknown:
        raise BadLine(f"It has fields that mean nothing here: {', '.join(unknown)[:200]}.", "unknown_field")


def _text(row: Mapping[str, Any], name: str, *, may_be_empty: bool = False) -> str:
    value = row[name]
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise BadLine(f"Its {name} must be a text that is not empty.", "empty")
    return value


def _filled(template: str, row: Mapping[str, Any]) -> str:
    parts: list[str] = []
    for literal, column, _, _ in Formatter().parse(template):
        parts.append(literal)
        if column is None:
            continue
        if column not in row:
            raise BadLine(f"It has no column {column!r}, which the text_template names.", "missing_column")
        parts.append(value if isinstance(value := row[column], str) else msgspec.json.encode(value).decode())
    text = "".join(parts)
    if not text.strip():
        raise BadLine("The text_template makes an empty text of it.", "empty")
    return text


def columns_of(text_template: str) -> Iterator[str]:
    """The columns that a template names. Raises ValueError when its braces do not match."""
    return (column for _, column, _, _ in Formatter().parse(text_template) if column is not None)
