"""Reads JSON Lines into examples. Everything wrong becomes a problem with its line; no problem quotes the data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any

import msgspec

from jobs.datasets.conversations import conversation_problem
from jobs.datasets.examples import Completion, Conversation, Example, Preference
from jobs.job import Problem

MAX_PROBLEMS = 1000
_PAIRS = (("prompt", "completion"), ("input", "output"), ("question", "answer"), ("instruction", "response"))
_CHAT = {"messages", "tools", "parallel_tool_calls", "functions"}
_PREFERENCE = {"input", "preferred_output", "non_preferred_output"}
_CHOICE = {"prompt", "chosen", "rejected", "tools"}


class BadLine(ValueError):
    """message: what is wrong with the line. code: for programs."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


@dataclass(slots=True)
class Data:
    """A file's examples; sha256: of its bytes. problems: at most MAX_PROBLEMS; num_problems: all."""

    path: Path
    examples: list[Example] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    num_problems: int = 0
    sha256: str = ""

    def blame(self, line: int | None, message: str, code: str) -> None:
        self.num_problems += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(message, file=str(self.path), line=line, code=code))


def read_data(path: Path, *, objective: str = "supervised", text_template: str | None = None) -> Data:
    """objective: supervised or dpo. text_template: `{column}` in place of each column's text; then any columns may be there."""
    data = Data(path)
    if not path.is_file():
        advice = "" if path.is_absolute() else " Give its whole path, as the daemon's machine has it."
        data.blame(None, f"There is no such file.{advice}", "file_not_found")
        return data
    digest = hashlib.sha256()
    seen: dict[bytes, int] = {}
    with path.open("rb") as file:
        for line, raw in enumerate(file, 1):
            digest.update(raw)
            if not raw.strip():
                continue
            try:
                example = _example(line, _object(raw), objective, text_template)
            except BadLine as error:
                data.blame(line, error.message, error.code)
                continue
            first = seen.setdefault(fingerprint(example), line)
            if first != line:
                data.blame(line, f"It is a duplicate of line {first}: take one out.", "duplicate")
            else:
                data.examples.append(example)
    data.sha256 = digest.hexdigest()
    if not data.examples and not data.problems:
        data.blame(None, "The file has no examples.", "empty_file")
    return data


def blame_leaks(training: Data, validation: Data) -> None:
    """Rows of the validation that the training has too are problems of the validation."""
    known = {fingerprint(example): example.line for example in training.examples}
    for example in validation.examples:
        line = known.get(fingerprint(example))
        if line is not None:
            message = f"It is line {line} of the training data: validation must be new to the model."
            validation.blame(example.line, message, "leaked")


def fingerprint(example: Example) -> bytes:
    """Equal for examples that say the same, wherever they stand."""
    said = {name: getattr(example, name) for name in example.__slots__ if name != "line"}
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).digest()


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode(raw)
    except UnicodeDecodeError:
        raise BadLine("It is not UTF-8.", "not_utf8") from None
    except msgspec.DecodeError as error:
        raise BadLine(f"It is not JSON: {error}.", "not_json") from None
    if not isinstance(value, dict):
        raise BadLine("It is JSON, but no object: write one object in a line.", "not_an_object")
    return value


def _example(line: int, row: Mapping[str, Any], objective: str, text_template: str | None) -> Example:
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
    problem = conversation_problem(row["messages"], row.get("tools"))
    if problem is not None:
        raise BadLine(*problem)
    return Conversation(line, row["messages"], row.get("tools") or ())


def _preference(line: int, row: Mapping[str, Any]) -> Preference:
    if set(row) >= _PREFERENCE:
        _known(row, _PREFERENCE)
        asked = row["input"] if isinstance(row["input"], dict) else {}
        messages, tools = asked.get("messages"), asked.get("tools")
        chosen, rejected = (_answer(row[name], name) for name in ("preferred_output", "non_preferred_output"))
    elif {"prompt", "chosen", "rejected"} <= set(row):
        _known(row, _CHOICE)
        messages = [{"role": "user", "content": row["prompt"]}] if isinstance(row["prompt"], str) else row["prompt"]
        tools = row.get("tools")
        chosen, rejected = (_answer(row[name], name) for name in ("chosen", "rejected"))
    else:
        forms = "neither input, preferred_output and non_preferred_output nor prompt, chosen and rejected"
        raise BadLine(f"It has {forms}.", "unknown_form")
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
