"""Teacher, student and untuned baseline side by side: quality, speed, memory, size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.task import TaskContext
from jobs.tasks.benchmark.closed_loop import decode_speed
from jobs.tasks.checkpoints import StagedProgress, served_variant
from jobs.tasks.distil.parameters import METRICS, DistilParams
from jobs.tasks.evaluate.local_model import LocalModel
from jobs.tasks.evaluate.metrics import PROPORTIONS, SCORES, Measured, measured, measured_together, proportion, rouge_l
from jobs.tasks.evaluate.questions import Question, read_questions
from jobs.tasks.evaluate.report import Column, write_reports
from model_registry.conversion.formats.checkpoint.importer import CheckpointImporter
from model_registry.conversion.importer import ImportOptions
from model_registry.records import Precision


def compared(
    params: DistilParams,
    student: Path,
    base: Path,
    stay: Sequence[int],
    checkpoint: Path,
    staging: Path,
    context: TaskContext,
) -> tuple[dict[str, float], tuple[str, ...]]:
    """(figures of the student, and of teacher and baseline under their names; the reports' names)."""
    if params.validation is None:
        return {}, ()
    questions = read_questions(Path(params.validation).expanduser(), None).questions
    if stay:
        work = staging / "untuned"
        work.mkdir()
        baseline = _served(context, checkpoint, work)
    else:
        baseline = base
    folders = {"student": student, "baseline": baseline}
    if isinstance(params.teacher, str):
        folders["teacher"] = served_variant(context.registry.resolve(params.teacher)).folder
    columns = [Column(who, _figures(params, questions, folder, context)) for who, folder in folders.items()]
    metrics = {
        (name if column.name == "student" else f"{column.name}_{name}"): figure.value
        for column in columns
        for name, figure in column.figures.items()
    }
    facts = [f"{len(questions)} questions", "greedy answers; tokens/s for one client and for eight, on this machine"]
    return metrics, write_reports(context.folder, "Distillation", facts, columns)


def _served(context: TaskContext, checkpoint: Path, folder: Path) -> Path:
    """The variants of a checkpoint that are served."""
    CheckpointImporter().run(checkpoint, folder, ImportOptions(Precision.AUTO), StagedProgress(context))
    return folder


def _figures(params: DistilParams, questions: Sequence[Question], folder: Path, context: TaskContext) -> dict[str, Measured]:
    context.stage("comparing")
    model = LocalModel(folder, context)
    try:
        found = dict(model.answers(list(enumerate(questions)), params.num_tokens))
        resident = float(model.resident_bytes())
    finally:
        model.close()
    answers = [found[number] for number in range(len(questions))]
    figures: dict[str, Measured] = {}
    for metric in METRICS[params.preset]:
        score: Any = SCORES.get(metric, rouge_l if metric == "rouge_l" else None)
        if score is None:
            figures[metric] = measured_together(metric, [each.answer for each in questions], [each.text for each in answers])
        else:
            found_scores = [score(each, actual) for each, actual in zip(questions, answers, strict=True)]
            figures[metric] = proportion(found_scores) if metric in PROPORTIONS else measured(found_scores)
    one, eight = decode_speed(folder, context)
    size = float(sum(file.stat().st_size for file in folder.iterdir()))
    plain: Mapping[str, float] = {"tokens_per_s_1": one, "tokens_per_s_8": eight, "size_bytes": size, "resident_bytes": resident}
    return figures | {name: Measured(value, value, value) for name, value in plain.items()}
