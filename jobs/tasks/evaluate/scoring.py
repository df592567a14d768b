"""From questions to figures: answers that are kept as they come, and every metric that needs no judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from jobs.task import TaskContext
from jobs.tasks.evaluate.kept_answers import kept_answers
from jobs.tasks.evaluate.local_model import LocalModel
from jobs.tasks.evaluate.metrics import CORPUS, SCORES, Answered, Measured, measured, measured_together, perplexity, rouge_l
from jobs.tasks.evaluate.questions import Question
from jobs.tasks.evaluate.targets import Target


def ask(
    path: Path, opener: Callable[[], Target], questions: Sequence[Question], max_tokens: int, context: TaskContext
) -> list[Answered]:
    """Those that were kept in the file, and the others, kept as they come. Nothing is opened when nothing is missing."""
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
    """Of those metrics that answers alone decide."""
    figures: dict[str, Measured] = {}
    for metric in metrics:
        if metric in CORPUS:
            right, said = [each.answer for each in questions], [each.text for each in answers]
            figures[metric] = measured_together(metric, right, said, seed)
        elif metric in SCORES or metric == "rouge_l":
            score = SCORES.get(metric, rouge_l)
            figures[metric] = measured([score(each, said) for each, said in zip(questions, answers, strict=True)], seed)
    return figures


def answer_perplexity(folder: Path, data: Path, num_questions: int, context: TaskContext, seed: int = 0) -> Measured:
    """Of the right answers in a data file that was found sound, given their questions, by the model in `folder`."""
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
