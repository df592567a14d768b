"""A model as judge: grades of single answers, and which of two is better. What it says unclearly counts as nothing said."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jobs.tasks.evaluate.metrics import Answered
from jobs.tasks.evaluate.questions import Question
from jobs.tasks.evaluate.targets import Target

_DIGIT = re.compile(r"\W*(?:grade\W+)?([1-5])\b(?!\s*/\s*(?!5\b))", re.IGNORECASE)  # 4, or 4/5, but not 4/10
_VOTE = re.compile(r"\W*(?:answer\W+)?(a|b|tie)\b", re.IGNORECASE)
_GRADE = """You grade an answer from 1 (useless) to 5 (as good as the reference). {rubric}

Question:
{question}

Reference:
{reference}

Answer:
{answer}

Reply with the grade alone, one digit."""
_PAIR = """Two answers to the same question. {rubric} Which is better?

Question:
{question}

Answer A:
{one}

Answer B:
{two}

Reply with A, B or tie alone."""


def grades(judge: Target, questions: Sequence[Question], answers: Sequence[Answered], rubric: str) -> list[float | None]:
    """0 to 1 for 1 to 5; None where the judge gave no grade."""
    asked = [
        _asked(number, _GRADE.format(rubric=rubric, question=_text(each), reference=each.answer, answer=said.text))
        for number, (each, said) in enumerate(zip(questions, answers, strict=True))
    ]
    found: list[float | None] = [None] * len(asked)
    for number, reply in judge.answers(asked, 4):
        digit = _DIGIT.match(reply.text)
        found[number] = (int(digit[1]) - 1) / 4 if digit else None
    return found


def preferences(
    judge: Target, questions: Sequence[Question], one: Sequence[Answered], two: Sequence[Answered], rubric: str
) -> list[float]:
    """1 where the first is better, 0 where the second is, else a half. Each pair is asked in both orders, against position bias
    (https://arxiv.org/abs/2306.05685)."""
    asked = []
    for number, question in enumerate(questions):
        for turn, (a, b) in enumerate(((one[number], two[number]), (two[number], one[number]))):
            text = _PAIR.format(rubric=rubric, question=_text(question), one=a.text, two=b.text)
            asked.append(_asked(2 * number + turn, text))
    votes = [0.5] * len(asked)
    for number, reply in judge.answers(asked, 4):
        said = _VOTE.match(reply.text)
        vote = {"a": 1.0, "b": 0.0}.get(said[1].lower(), 0.5) if said else 0.5
        votes[number] = vote if number % 2 == 0 else 1 - vote
    return [(votes[index] + votes[index + 1]) / 2 for index in range(0, len(votes), 2)]


def _asked(number: int, text: str) -> tuple[int, Question]:
    return number, Question(0, [{"role": "user", "content": text}], "")


def _text(question: Question) -> str:
    return "\n".join(f"{message['role']}: {message.get('content') or ''}" for message in question.messages)
