"""Evaluation data: the forms of training data, whose last assistant turn is what a right answer looks like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.datasets.examples import Completion, Conversation, Message
from jobs.datasets.reading import read_data
from jobs.job import InvalidJob

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


def read_questions(path: Path, limit: int | None) -> tuple[list[Question], str]:
    """(questions, sha256 of the file). Raises InvalidJob with every line that cannot be used."""
    data = read_data(path)
    if data.problems:
        raise InvalidJob(data.problems)
    questions = [_question(example) for example in data.examples if isinstance(example, Conversation | Completion)]
    return questions[:limit], data.sha256


def _question(example: Conversation | Completion) -> Question:
    if isinstance(example, Completion):
        return Question(example.line, [{"role": "user", "content": example.prompt}], example.completion, prompt=example.prompt)
    *before, last = example.messages
    calls = tuple((call["function"]["name"], json.loads(call["function"]["arguments"])) for call in last.get("tool_calls") or ())
    return Question(example.line, before, last.get("content") or "", example.tools, calls or None)
