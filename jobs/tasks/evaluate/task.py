"""Task `evaluate`: what a model's answers are worth on a user's data. Owns the way from questions to kept figures and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from jobs.fields import InputFile, VersionName
from jobs.task import InvalidJob, JobKind, Outcome, Params, Plan, Problem, TaskContext
from jobs.tasks.checkpoints import served_variant
from jobs.tasks.evaluate.endpoints import Endpoint
from jobs.tasks.evaluate.metrics import Measured, few_questions, measured
from jobs.tasks.evaluate.questions import Answered, Question, QuestionData, read_questions
from jobs.tasks.evaluate.report import Column, write_reports
from jobs.tasks.evaluate.scoring import answer_perplexity, collect_answers, grades, preferences, scores
from jobs.tasks.evaluate.targets import check_target, open_target
from jobs.tasks.preconditions import check_installed, has_chat_template
from model_registry.evaluations import Evaluation

Metric = Literal[
    "exact_match",
    "accuracy",
    "f1",
    "last_number",
    "json_validity",
    "tool_call_match",
    "bleu",
    "chrf",
    "rouge_l",
    "perplexity",
    "judge",
    "win_rate",
]
_TOKENS_PER_S = 250.0  # of eight questions at a time on two cores, for plans
_QUERYING = {"target": "querying the target", "against": "querying the other model"}
_PACKAGES = {"bleu": "sacrebleu", "chrf": "sacrebleu", "rouge_l": "rouge_score"}


class EvaluateParams(Params):
    """Scores a model's answers."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"target": "my-model", "data": "questions.jsonl", "metrics": ["f1", "accuracy"]}]}
    )

    target: VersionName | Endpoint = Field(description="A version of the registry, or an endpoint of the configuration.")
    data: InputFile = Field(min_length=1, description="A JSON Lines file; the last assistant turn of a line is the right answer.")
    metrics: list[Metric] = Field(["exact_match", "f1"], min_length=1, description="Metrics to compute.")
    against: VersionName | Endpoint | None = Field(
        None, description="A second model to compare with; win_rate is the target's over it."
    )
    judge: VersionName | Endpoint | None = Field(None, description="The model that grades and compares.")
    rubric: str = Field("Judge correctness first, then clarity.", max_length=4000, description="Instruction for the judge.")
    max_tokens: int = Field(256, ge=1, le=32_768, description="Maximum length of an answer, in tokens.")
    limit: int | None = Field(None, ge=1, description="Use only the first questions, this many.")
    seed: int = Field(0, ge=0, description="Seed of the confidence intervals.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if {"judge", "win_rate"} & set(self.metrics) and self.judge is None:
            raise ValueError("judge and win_rate need a judge")
        if "win_rate" in self.metrics and self.against is None:
            raise ValueError("win_rate needs against, the model to compare the target with")
        if "perplexity" in self.metrics and isinstance(self.target, Endpoint):
            raise ValueError("perplexity needs a version of the registry: endpoints do not return it")
        return self


class Evaluate:
    """Answers are kept as they arrive: an interrupted run sends no question to a target twice. Judges are queried again."""

    kind: ClassVar[JobKind] = JobKind.EVALUATE
    params: ClassVar[type[Params]] = EvaluateParams

    def plan(self, params: EvaluateParams, context: TaskContext) -> Plan:
        data = _questions(params)
        questions = data.questions
        targets = {"target": params.target, "against": params.against, "judge": params.judge}
        _check_packages(params)
        names = {name: check_target(target, context, name) for name, target in targets.items() if target is not None}
        _check_chat(params, questions, context)
        summary = [f"Sends {len(questions)} questions to {names['target']} and measures {', '.join(params.metrics)}."]
        summary += [f"Sends the same questions to {names['against']}."] if "against" in names else []
        summary += [f"Lets {names['judge']} judge."] if "judge" in names else []
        seconds = len(questions) * params.max_tokens * len(names) / _TOKENS_PER_S
        return Plan(tuple(summary), num_steps=len(questions), duration_s=seconds, warnings=_warnings(data))

    def stages(self, params: EvaluateParams, context: TaskContext) -> tuple[str, ...]:
        perplexity = ("measuring the perplexity",) if "perplexity" in params.metrics else ()
        other = () if params.against is None else (_QUERYING["against"],)
        judging = [stage for metric, stage in (("judge", "grading"), ("win_rate", "comparing")) if metric in params.metrics]
        return (_QUERYING["target"], *perplexity, *other, *judging)

    def run(self, params: EvaluateParams, context: TaskContext) -> Outcome:
        data = _questions(params)
        questions, sha256 = data.questions, data.sha256
        for sentence in _warnings(data):
            context.reporter.message(sentence, "warning")
        name, other = _checked(params, context)
        answers = _answers("target", params.target, questions, params, context)
        figures = _figures(params, questions, answers)
        if "perplexity" in params.metrics:
            figures["perplexity"] = _perplexity(params, questions, context)
        columns = [Column(name, figures)]
        others: list[Answered] | None = None
        if params.against is not None:
            others = _answers("against", params.against, questions, params, context)
            columns.append(Column(other, _figures(params, questions, others)))
        if params.judge is not None:
            figures |= _judged(params, questions, answers, others, context)
        facts = [f"{len(questions)} questions, data sha256 {sha256}", f"answers of at most {params.max_tokens} tokens, greedy"]
        facts += few_questions(len(questions))
        files = write_reports(context.folder, f"Evaluation of {name}", facts, columns)
        of = {"data_sha256": sha256, "num_questions": len(questions), "warnings": list(few_questions(len(questions)))}
        context.evaluations.add(*(_evaluation(column, of, context.job) for column in reversed(columns)))
        return Outcome(None, _values(figures), files, {**of, "intervals": _intervals(figures), "target": name})


def _check_packages(params: EvaluateParams) -> None:
    """Raises InvalidJob when a metric, or the report's plot, needs what is not installed."""
    needed = dict.fromkeys(_PACKAGES[metric] for metric in params.metrics if metric in _PACKAGES)
    check_installed((*needed, "matplotlib"), "metrics")


def _check_chat(params: EvaluateParams, questions: Sequence[Question], context: TaskContext) -> None:
    """Raises InvalidJob when a version has no chat template, and the data has more than plain prompts."""
    if all(question.prompt is not None for question in questions):
        return
    for param in ("target", "against"):
        name = getattr(params, param)
        if isinstance(name, str) and not has_chat_template(version := context.registry.resolve(name)):
            message = f"{version.label} has no chat template: evaluate it on lines with prompt and completion."
            raise InvalidJob([Problem(message, param=param, code="no_chat_template")])


def _warnings(data: QuestionData) -> tuple[str, ...]:
    return (*data.left_out, *few_questions(len(data.questions)))


def _evaluation(column: Column, of: Mapping[str, Any], job: str) -> Evaluation:
    """of: what the data was."""
    by_question = {metric: list(each.scores) for metric, each in column.figures.items() if each.scores is not None}
    details = {**of, "intervals": _intervals(column.figures), "scores": by_question}
    return Evaluation(column.name, str(JobKind.EVALUATE), _values(column.figures), details, job)


def _values(figures: Mapping[str, Measured]) -> dict[str, float]:
    return {metric: each.value for metric, each in figures.items()}


def _intervals(figures: Mapping[str, Measured]) -> dict[str, list[float]]:
    return {metric: [each.low, each.high] for metric, each in figures.items()}


def _checked(params: EvaluateParams, context: TaskContext) -> tuple[str, str]:
    """Resolves the names of target and against, before any question is sent. Raises InvalidJob, RegistryError."""
    if params.judge is not None:
        check_target(params.judge, context, "judge")
    other = "" if params.against is None else check_target(params.against, context, "against")
    return check_target(params.target, context, "target"), other


def _questions(params: EvaluateParams) -> QuestionData:
    data = read_questions(Path(params.data).expanduser(), params.limit)
    if "tool_call_match" in params.metrics and not any(question.tools for question in data.questions):
        raise InvalidJob([Problem("tool_call_match needs questions with tools.", param="metrics", file=params.data)])
    return data


def _answers(
    who: str, target: str | Endpoint, questions: Sequence[Question], params: EvaluateParams, context: TaskContext
) -> list[Answered]:
    context.stage(_QUERYING[who])
    path = context.folder / f"answers-{who}.jsonl"
    return collect_answers(path, lambda: open_target(target, context), questions, params.max_tokens, context)


def _figures(params: EvaluateParams, questions: Sequence[Question], answers: Sequence[Answered]) -> dict[str, Measured]:
    return scores(params.metrics, questions, answers, params.seed)


def _perplexity(params: EvaluateParams, questions: Sequence[Question], context: TaskContext) -> Measured:
    assert isinstance(params.target, str)
    folder = served_variant(context.registry.resolve(params.target)).folder
    return answer_perplexity(folder, Path(params.data).expanduser(), len(questions), context, params.seed)


def _judged(
    params: EvaluateParams,
    questions: Sequence[Question],
    answers: Sequence[Answered],
    others: Sequence[Answered] | None,
    context: TaskContext,
) -> dict[str, Measured]:
    assert params.judge is not None
    judge = open_target(params.judge, context)
    figures: dict[str, Measured] = {}
    try:
        if "judge" in params.metrics:
            context.stage("grading")
            given = [grade for grade in grades(judge, questions, answers, params.rubric) if grade is not None]
            context.reporter.message(f"The judge graded {len(given)} of {len(questions)} answers.")
            if given:
                found = measured(given, params.seed)
                figures["judge"] = found if len(given) == len(questions) else replace(found, scores=None)
        if "win_rate" in params.metrics and others is not None:
            context.stage("comparing")
            figures["win_rate"] = measured(preferences(judge, questions, answers, others, params.rubric), params.seed)
    finally:
        judge.close()
    return figures


TASK = Evaluate()
