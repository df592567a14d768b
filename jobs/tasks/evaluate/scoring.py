"""From questions to figures: answers that are kept as they come, every metric that needs no judge, and the judge's.

A judge grades single answers, and says which of two is better. What it says unclearly counts as nothing said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from jobs.task import TaskContext
from jobs.tasks.evaluate.local_model import LocalModel
from jobs.tasks.evaluate.metrics import (
    CORPUS,
    PROPORTIONS,
    SCORES,
    Measured,
    measured,
    measured_together,
    perplexity,
    proportion,
    rouge_l,
)
from jobs.tasks.evaluate.questions import Answered, Question, kept_answers
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


def collect_answers(
    path: Path, opener: Callable[[], Target], questions: Sequence[Question], max_tokens: int, context: TaskContext
) -> list[Answered]:
    """The answers to all questions, in their order: those in the file, and the missing ones, which are added to it as they arrive.

    Opens no target when none is missing.
    """
    found = kept_answers(path)
    missing = [(number, question) for number, question in enumerate(questions) if number not in found]
    if missing:
        opened = opener()
        try:
            with path.open("a", encoding="utf-8") as file:
                for number, answered in opened.answers(missing, max_tokens):
                    found[number] = answered
                    file.write(json.dumps({"number": number, **asdict(answered)}) + "\n")
                    file.flush()
                    context.progress(len(found), len(questions), unit="questions")
        finally:
            opened.close()
    return [found[number] for number in range(len(questions))]


def scores(
    metrics: Collection[str], questions: Sequence[Question], answers: Sequence[Answered], seed: int = 0
) -> dict[str, Measured]:
    """The values of the metrics that depend on answers alone."""
    figures: dict[str, Measured] = {}
    for metric in metrics:
        if metric in CORPUS:
            right, answer = [each.answer for each in questions], [each.text for each in answers]
            figures[metric] = measured_together(metric, right, answer, seed)
        elif metric in SCORES or metric == "rouge_l":
            score = SCORES.get(metric, rouge_l)
            found = [score(each, answer) for each, answer in zip(questions, answers, strict=True)]
            figures[metric] = proportion(found) if metric in PROPORTIONS else measured(found, seed)
    return figures


def answer_perplexity(folder: Path, data: Path, num_questions: int, context: TaskContext, seed: int = 0) -> Measured:
    """The perplexity that the model in `folder` has for the right answers in a checked data file, given their questions."""
    from jobs.tasks.finetune.material import read_material
    from jobs.tasks.finetune.rendering import Renderer

    examples = read_material(data, Renderer(folder)).tokens[:num_questions]
    context.stage("measuring the perplexity")
    model = LocalModel(folder, context)
    try:
        losses: list[tuple[float, int]] = []
        for _, loss, count in model.losses(examples):
            losses.append((loss, count))
            context.progress(len(losses), len(examples), unit="questions")
    finally:
        model.close()
    return perplexity(losses, seed)


def grades(judge: Target, questions: Sequence[Question], answers: Sequence[Answered], rubric: str) -> list[float | None]:
    """0 to 1 for 1 to 5; None where the judge gave no grade."""
    prompts = [
        _numbered_question(number, _GRADE.format(rubric=rubric, question=_text(each), reference=each.answer, answer=answer.text))
        for number, (each, answer) in enumerate(zip(questions, answers, strict=True))
    ]
    found: list[float | None] = [None] * len(prompts)
    for number, reply in judge.answers(prompts, 4):
        digit = _DIGIT.match(reply.text)
        found[number] = (int(digit[1]) - 1) / 4 if digit else None
    return found


def preferences(
    judge: Target, questions: Sequence[Question], one: Sequence[Answered], two: Sequence[Answered], rubric: str
) -> list[float]:
    """1 where the first is better, 0 where the second is, else a half. Each pair is judged in both orders, against position bias
    (https://arxiv.org/abs/2306.05685)."""
    prompts = []
    for number, question in enumerate(questions):
        for turn, (a, b) in enumerate(((one[number], two[number]), (two[number], one[number]))):
            text = _PAIR.format(rubric=rubric, question=_text(question), one=a.text, two=b.text)
            prompts.append(_numbered_question(2 * number + turn, text))
    votes = [0.5] * len(prompts)
    for number, reply in judge.answers(prompts, 4):
        vote_match = _VOTE.match(reply.text)
        vote = {"a": 1.0, "b": 0.0}.get(vote_match[1].lower(), 0.5) if vote_match else 0.5
        votes[number] = vote if number % 2 == 0 else 1 - vote
    return [(votes[index] + votes[index + 1]) / 2 for index in range(0, len(votes), 2)]


def _numbered_question(number: int, text: str) -> tuple[int, Question]:
    return number, Question(0, [{"role": "user", "content": text}], "")


def _text(question: Question) -> str:
    return "\n".join(f"{message['role']}: {message.get('content') or ''}" for message in question.messages)
