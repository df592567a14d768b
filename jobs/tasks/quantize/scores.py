"""Scores on a task's data before and after: the version that a quantization began from, and the build that it chose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.task import InvalidJob, Problem, TaskContext
from jobs.tasks.evaluate.local_model import LocalModel
from jobs.tasks.evaluate.metrics import Measured
from jobs.tasks.evaluate.questions import Question, QuestionData, read_questions
from jobs.tasks.evaluate.scoring import answer_perplexity, ask, scores
from jobs.tasks.quantize.parameters import QuantizeParams


def questions_of(params: QuantizeParams) -> QuestionData | None:
    """None without data. Raises InvalidJob."""
    if params.data is None:
        return None
    data = read_questions(Path(params.data).expanduser(), params.limit)
    if "tool_call_match" in params.chosen_metrics and not any(question.tools for question in data.questions):
        raise InvalidJob([Problem("tool_call_match needs questions with tools.", param="metrics", file=params.data)])
    return data


def task_scores(
    who: str, folder: Path, params: QuantizeParams, questions: Sequence[Question], context: TaskContext
) -> dict[str, Measured]:
    """Of the build in `folder`. who: under which name its answers are kept."""
    if params.data is None:
        return {}
    context.stage(f"asking the model {who}")
    answers = ask(
        context.folder / f"answers-{who}.jsonl", lambda: LocalModel(folder, context), questions, params.max_tokens, context
    )
    figures = scores(params.chosen_metrics, questions, answers)
    if "perplexity" in params.chosen_metrics:
        figures["perplexity"] = answer_perplexity(folder, Path(params.data).expanduser(), len(questions), context)
    return figures
