"""The teacher's answers: asked once, kept as they come, filtered, and written as training data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.job import JobFailure
from jobs.task import TaskContext
from jobs.tasks.distil.filters import kept, without_near_duplicates
from jobs.tasks.distil.parameters import DistilParams
from jobs.tasks.evaluate.judge import grades
from jobs.tasks.evaluate.kept_answers import kept_answers
from jobs.tasks.evaluate.metrics import Answered
from jobs.tasks.evaluate.questions import Question
from jobs.tasks.evaluate.targets import open_target

_ANSWERS, _TAUGHT = "answers.jsonl", "taught.jsonl"


def taught(params: DistilParams, questions: Sequence[Question], context: TaskContext) -> tuple[Path, dict[str, int]]:
    """(the file of what is learned, how many answers were asked and kept)."""
    path, made = context.folder / _ANSWERS, context.folder / _TAUGHT
    total = len(questions) * params.num_samples
    found = kept_answers(path)
    missing = [(number, questions[number // params.num_samples]) for number in range(total) if number not in found]
    if missing:
        context.stage("asking the teacher")
        teacher = open_target(params.teacher, context)
        try:
            with path.open("a", encoding="utf-8") as file:
                for number, answered in teacher.answers(missing, params.num_tokens, params.heat, params.seed):
                    found[number] = answered
                    file.write(json.dumps({"number": number, **asdict(answered)}) + "\n")
                    file.flush()
                    context.progress(len(found), total, unit="answers")
        finally:
            teacher.close()
    context.stage("filtering")
    rows: list[tuple[Question, Answered]] = []
    for index, question in enumerate(questions):
        samples = [found[index * params.num_samples + sample] for sample in range(params.num_samples)]
        rows += [(question, samples[place]) for place in kept(samples, params.wish)]
    if params.judge is not None and rows:
        rows = _graded(params, rows, context)
    if params.wish.near_duplicates is not None:
        texts = [f"{question.messages[-1].get('content')} {answered.text}" for question, answered in rows]
        places = without_near_duplicates(texts, params.wish.near_duplicates)
        rows = [rows[place] for place in places]
    if not rows:
        raise JobFailure("No answer of the teacher passed the filters. Loosen them, or ask another teacher.", code="nothing_kept")
    beside = made.with_suffix(".new")
    beside.write_text("".join(json.dumps(_row(*row)) + "\n" for row in rows), encoding="utf-8")
    beside.replace(made)
    counts = {"answers": total, "kept": len(rows)}
    context.reporter.message(f"{len(rows)} of {total} answers are learned.")
    return made, counts


def _graded(params: DistilParams, rows: list[tuple[Question, Answered]], context: TaskContext) -> list[tuple[Question, Answered]]:
    assert params.judge is not None
    assert params.wish.min_grade is not None
    context.stage("grading")
    judge = open_target(params.judge, context)
    try:
        given = grades(judge, [row[0] for row in rows], [row[1] for row in rows], "Judge correctness first, then clarity.")
    finally:
        judge.close()
    least = (params.wish.min_grade - 1) / 4
    return [row for row, grade in zip(rows, given, strict=True) if grade is not None and grade >= least]


def _row(question: Question, answered: Answered) -> dict[str, Any]:
    answer: dict[str, Any] = {"role": "assistant", "content": answered.text}
    if answered.calls:
        answer["content"] = answered.text or None
        answer["tool_calls"] = [
            {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for number, (name, arguments) in enumerate(answered.calls)
        ]
    row: dict[str, Any] = {"messages": [*question.messages, answer]}
    return row | ({"tools": list(question.tools)} if question.tools else {})
