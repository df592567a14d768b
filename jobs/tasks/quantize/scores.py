"""Scores on a task's data before and after a quantization, and its report: what was tried, what was chosen and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.task import InvalidJob, Problem, TaskContext
from jobs.tasks.evaluate.local_model import LocalModel
from jobs.tasks.evaluate.metrics import Measured
from jobs.tasks.evaluate.questions import Question, QuestionData, read_questions
from jobs.tasks.evaluate.scoring import answer_perplexity, collect_answers, scores
from jobs.tasks.quantize.parameters import BuildResult, QuantizeParams


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
    """The scores of the build in `folder`. who: the name under which its answers are kept."""
    if params.data is None:
        return {}
    context.stage(f"querying the model {who}")
    answers = collect_answers(
        context.folder / f"answers-{who}.jsonl", lambda: LocalModel(folder, context), questions, params.max_tokens, context
    )
    figures = scores(params.chosen_metrics, questions, answers)
    if "perplexity" in params.chosen_metrics:
        figures["perplexity"] = answer_perplexity(folder, Path(params.data).expanduser(), len(questions), context)
    return figures


def markdown(
    label: str,
    before: BuildResult,
    results: Sequence[BuildResult],
    why: Sequence[str],
    scores: Mapping[str, tuple[Measured, Measured]],
) -> str:
    """scores: of each metric, before and after."""
    head = ["| build | perplexity over source | MB | tokens/s, 1 client | tokens/s, 8 clients |", "|---|---|---|---|---|"]
    lines = [f"# Quantization of {label}", "", *head, *(_row(each) for each in (before, *results)), "", *why, ""]
    if scores:
        lines += ["| score | before | after |", "|---|---|---|"]
        lines += [f"| {metric} | {_figure(one)} | {_figure(two)} |" for metric, (one, two) in scores.items()]
        lines += [""]
    return "\n".join(lines)


def _row(result: BuildResult) -> str:
    cells = (result.name, f"{result.ratio:.4f}", f"{result.size_bytes / 1e6:.0f}", *map(round, result.tokens_per_s))
    return f"| {' | '.join(map(str, cells))} |"


def _figure(measured: Measured) -> str:
    return f"{measured.value:.4g} ({measured.low:.3g} to {measured.high:.3g})"
