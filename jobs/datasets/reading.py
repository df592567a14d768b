"""Reads JSON Lines into examples. Everything wrong becomes a problem with its line; no problem quotes the data.

What can be left out without harm is: lines that are there already, and lines of validation data that are learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any, BinaryIO

import msgspec

from jobs.datasets.conversations import conversation_problem, with_arguments_as_text
from jobs.datasets.examples import Completion, Conversation, Example, Preference
from jobs.datasets.lines import MAX_LINE_BYTES, beginning_of, broken_text, lines_of, of_broken_utf8, what_it_looks_like
from jobs.task import Problem

MAX_PROBLEMS = 1000
FEW = 5  # lines that a sentence names
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
class LeftOut:
    """Lines that are not used. first: at most FEW of them."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        self.count += 1
        if len(self.first) < FEW:
            self.first.append(line)

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.first)) + (", ..." if self.count > len(self.first) else "")
        return f"{self.count} line{'s' if self.count > 1 else ''} ({shown})"


@dataclass(slots=True)
class Data:
    """A file's examples; sha256: of its bytes. problems: at most MAX_PROBLEMS; num_problems: all.

    known: fingerprints of its examples; duplicates: of earlier lines, leaked: of data that is learned, both left out.
    """

    path: Path
    examples: list[Example] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    num_problems: int = 0
    sha256: str = ""
    num_examples: int = 0
    known: set[bytes] = field(default_factory=set)
    duplicates: LeftOut = field(default_factory=LeftOut)
    leaked: LeftOut = field(default_factory=LeftOut)

    def blame(self, line: int | None, message: str, code: str) -> None:
        self.num_problems += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(message, file=str(self.path), line=line, code=code))

    def left_out(self) -> tuple[str, ...]:
        """A sentence for each reason for which lines are not used."""
        sentences = []
        if self.duplicates.count:
            sentences.append(f"{self.path.name}: {self.duplicates} left out, which say the same as earlier ones.")
        if self.leaked.count:
            sentences.append(
                f"{self.path.name}: {self.leaked} left out, which are training data: validation must be new to the model."
            )
        return tuple(sentences)


def read_data(path: Path, *, objective: str = "supervised", text_template: str | None = None) -> Data:
    """objective: supervised or dpo. text_template: `{column}` in place of each column's text; then any columns may be there."""
    data = Data(path)
    data.examples.extend(stream(data, objective=objective, text_template=text_template))
    return data


def stream(
    data: Data, *, objective: str = "supervised", text_template: str | None = None, learned: Set[bytes] = frozenset()
) -> Iterator[Example]:
    """The examples one by one, none of which it keeps; fills in everything else of `data`. learned: fingerprints of training data.

    Takes some 100 bytes per line, and one line.
    """
    if not _is_readable(data):
        return
    digest = hashlib.sha256()
    with data.path.open("rb") as file:
        source = _Digesting(file, digest)
        for line, raw in enumerate(lines_of(source), 1):  # type: ignore[arg-type]
            if raw is None:
                data.blame(line, f"It is longer than {MAX_LINE_BYTES >> 20} MiB, which no example is: split it.", "line_too_long")
                continue
            if not raw.strip():
                continue
            try:
                example = _example(line, _object(raw), objective, text_template)
            except _NotUtf8:
                what, remedy, code = of_broken_utf8(raw)
                data.blame(line, f"The file {what}. {remedy}", code)
                return
            except BadLine as error:
                data.blame(line, error.message, error.code)
                continue
            mark = fingerprint(example)
            if mark in data.known:
                data.duplicates.add(line)
            elif mark in learned:
                data.leaked.add(line)
            else:
                data.known.add(mark)
                data.num_examples += 1
                yield example
    data.sha256 = digest.hexdigest()
    if not data.num_examples and not data.problems:
        _blame_emptiness(data)


def _is_readable(data: Data) -> bool:
    if not data.path.is_file():
        advice = "" if data.path.is_absolute() else " Give its whole path, as the daemon's machine has it."
        data.blame(None, f"There is no such file.{advice}", "file_not_found")
        return False
    found = what_it_looks_like(beginning_of(data.path))
    if found is not None:
        what, remedy, code = found
        data.blame(None, f"The file {what}. {remedy}", code)
    return found is None


def _blame_emptiness(data: Data) -> None:
    if data.leaked.count:
        data.blame(None, "All of its rows are training data: validation must be new to the model.", "leaked")
    else:
        data.blame(None, "The file has no examples.", "empty_file")


class _NotUtf8(Exception):
    """The line is no UTF-8."""


class _Digesting:
    """Reads lines of a file, all of whose bytes are counted in."""

    def __init__(self, file: BinaryIO, digest: Any) -> None:
        self._file = file
        self._digest = digest

    def readline(self, size: int) -> bytes:
        raw = self._file.readline(size)
        self._digest.update(raw)
        return raw


def fingerprint(example: Example) -> bytes:
    """Equal for examples that say the same, wherever they stand."""
    said = {name: getattr(example, name) for name in example.__slots__ if name != "line"}
    return hashlib.blake2b(msgspec.json.encode(said, order="deterministic"), digest_size=16).digest()


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _why_not_json(raw, error) from None
    if not isinstance(value, dict):
        raise BadLine("It is JSON, but no object: write one object in a line.", "not_an_object")
    return value


def _why_not_json(raw: bytes, error: Exception) -> Exception:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return _NotUtf8()
    if isinstance(error, RecursionError):
        return BadLine("It is nested too deeply.", "not_json")
    if "surrogate" in str(error) and (place := broken_text(text)) is not None:
        return BadLine(f"{place} has half of a surrogate pair (as \\ud83d alone): write the whole character.", "lone_surrogate")
    return BadLine(f"It is not JSON: {error}.", "not_json")


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
    messages = with_arguments_as_text(row["messages"])
    problem = conversation_problem(messages, row.get("tools"))
    if problem is not None:
        raise BadLine(*problem)
    return Conversation(line, messages, row.get("tools") or ())


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
