"""Questions with their right answers, and what was answered: read from a user's file, and kept in a job's folder.

Evaluation data has the forms of training data, whose last assistant turn is what a right answer looks like.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.datasets.examples import Completion, Conversation, Message
from jobs.datasets.reading import Data, stream
from jobs.task import InvalidJob

Call = tuple[str, Mapping[str, Any]]  # name, arguments


@dataclass(frozen=True, slots=True)
class Question:
    """messages: before the answer; for a plain completion, none, and prompt is its text. calls: the right ones, None if none."""

    line: int
    messages: Sequence[Message]
    answer: str
    tools: Sequence[Message] = ()
    calls: tuple[Call, ...] | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """A target's answer. calls: its tool calls; arguments are None when they are no JSON object."""

    text: str
    calls: tuple[tuple[str, Mapping[str, Any] | None], ...] = ()


@dataclass(frozen=True, slots=True)
class QuestionData:
    """Questions of a file; sha256: of the file. left_out: a sentence for each reason for which lines are not used."""

    questions: list[Question]
    sha256: str
    left_out: tuple[str, ...] = ()


def read_questions(path: Path, limit: int | None) -> QuestionData:
    """Raises InvalidJob with every line that cannot be used."""
    data = Data(path)
    questions = [_question(example) for example in stream(data) if isinstance(example, Conversation | Completion)]
    if data.problems:
        raise InvalidJob(data.problems)
    return QuestionData(questions[:limit], data.sha256, data.left_out())


def _question(example: Conversation | Completion) -> Question:
    if isinstance(example, Completion):
        return Question(example.line, [{"role": "user", "content": example.prompt}], example.completion, prompt=example.prompt)
    *before, last = example.messages
    calls = tuple((call["function"]["name"], json.loads(call["function"]["arguments"])) for call in last.get("tool_calls") or ())
    return Question(example.line, before, last.get("content") or "", example.tools, calls or None)


def kept_answers(path: Path) -> dict[int, Answered]:
    """A last line that was cut is not there."""
    found: dict[int, Answered] = {}
    if path.exists():
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
        path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
        for line in filter(None, whole.split("\n")):
            row = json.loads(line)
            found[row["number"]] = Answered(row["text"], tuple((name, arguments) for name, arguments in row["calls"]))
    return found
