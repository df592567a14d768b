"""Task `quantize`: a version rebuilt with other numbers of bits, and measured against its source and its former build on this
machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from jobs.task import JobKind, Outcome, Params, Plan, TaskContext
from jobs.tasks.checkpoints import materialise, served_variant
from jobs.tasks.evaluate.metrics import Measured, few_questions
from jobs.tasks.evaluate.questions import Question, QuestionData
from jobs.tasks.outputs import Output, checked_name, made_by, register
from jobs.tasks.preconditions import check_runs_here, weights_of
from jobs.tasks.quantize.builds import Builds, remove_builds
from jobs.tasks.quantize.calibration import Examples, read_examples
from jobs.tasks.quantize.parameters import BuildResult, QuantizeParams, choose, describe_build, requested_candidate
from jobs.tasks.quantize.scores import markdown, questions_of, task_scores
from jobs.tasks.quantize.searching import search
from model_registry.artifacts import StagedVariant
from model_registry.records import ModelVersion, Precision

_REPORT = "quantization.md"
_SEARCHING, _MEASURING, _REGISTERING = "searching among builds", "building and measuring", "registering the build"
_BUILD_S, _SEARCH_S = 45.0, 240.0  # of a model with 135 million weights on two cores, for plans
_SEARCH_FOR_EXAMPLES_S = 500.0  # there are more tokens of them than of the shipped texts
_TOKENS_PER_S = 250.0  # of eight questions at a time on two cores, for plans


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What is registered: its figures, its folder, what the importer decided, and why it was chosen."""

    measured: BuildResult
    folder: Path
    parameters: dict[str, Any]
    others: tuple[BuildResult, ...]
    why: tuple[str, ...]


class Quantize:
    """What was built, measured and answered is kept in the job's folder, and not done again."""

    kind: ClassVar[JobKind] = JobKind.QUANTIZE
    params: ClassVar[type[Params]] = QuantizeParams

    def plan(self, params: QuantizeParams, context: TaskContext) -> Plan:
        version, name = context.registry.resolve(params.model), _output(params)
        served = served_variant(version)
        check_runs_here(version, "model")
        weights = weights_of(version, context, "model")
        examples = _examples(params, served.folder)
        data = questions_of(params)
        questions = data.questions if data is not None else []
        size = max(1.0, served.size_bytes / 150e6)
        is_search = params.precision == "auto"
        what = "int8, int4 and mixtures of both" if is_search else params.precision
        summary = [*weights.summary, f"Builds {version.label} as {what}, and measures perplexity, size, speed."]
        if examples is not None:
            summary += [f"Rounds for {len(examples.tokens)} examples, and measures perplexity by the answers of every other one."]
        summary += [f"Sends {len(questions)} questions each to {version.label} and the build."] if questions else []
        summary += [f"Registers the {'fastest within the loss allowed' if is_search else 'build'} as {name}."]
        search_s = _SEARCH_S if examples is None else _SEARCH_FOR_EXAMPLES_S
        seconds = size * (search_s if is_search else _BUILD_S) + 2 * len(questions) * params.max_tokens / _TOKENS_PER_S
        return Plan(
            tuple(summary),
            duration_s=seconds,
            disk_bytes=(8 if is_search else 4) * version.size_bytes + weights.disk_bytes,
            download_bytes=weights.download_bytes,
            outputs=(name,),
            warnings=_left_out(examples, data) + (few_questions(len(questions)) if data is not None else ()),
        )

    def stages(self, params: QuantizeParams, context: TaskContext) -> tuple[str, ...]:
        weights = weights_of(context.registry.resolve(params.model), context, "model")
        scoring = () if params.data is None else ("querying the model before", "querying the model after")
        return (*weights.stages, _SEARCHING if params.precision == "auto" else _MEASURING, *scoring, _REGISTERING)

    def run(self, params: QuantizeParams, context: TaskContext) -> Outcome:
        name = _output(params)
        if (made := made_by(context.registry, name, context.job)) is not None:
            remove_builds(context)
            return Outcome(made.label, dict(made.manifest.metrics), (_REPORT,), {"parameters": dict(made.manifest.parameters)})
        data = questions_of(params)
        questions, sha256 = (data.questions, data.sha256) if data is not None else ([], None)
        base = context.registry.resolve(params.model)
        checkpoint = materialise(context, base.label)
        served = served_variant(base).folder
        examples = _examples(params, served)
        for sentence in _left_out(examples, data):
            context.reporter.message(sentence, "warning")
        builds = Builds(checkpoint, context, examples)
        context.stage(_SEARCHING if params.precision == "auto" else _MEASURING)
        if params.precision == "auto":
            before, chosen = _searched(base.label, served, builds, params)
        else:
            before, chosen = _built(base.label, served, builds, params)
        for sentence in chosen.why:
            context.reporter.message(sentence)
        scores = _scores(served, chosen.folder, params, questions, context)
        (context.folder / _REPORT).write_text(markdown(base.label, before, chosen.others, chosen.why, scores), encoding="utf-8")
        metrics = _metrics(before, chosen, scores)
        version = _registered(name, base, checkpoint, chosen, metrics, params, sha256, context)
        remove_builds(context)
        intervals = {
            place: {metric: [each[number].low, each[number].high] for metric, each in scores.items()}
            for number, place in enumerate(("before", "after"))
        }
        measured = [asdict(each) for each in chosen.others]
        details = {"why": list(chosen.why), "tried": measured, "before": asdict(before), "intervals": intervals}
        return Outcome(version.label, dict(version.manifest.metrics), (_REPORT,), details)


def _output(params: QuantizeParams) -> str:
    return checked_name(params.output or f"{params.model.partition(':')[0]}-quantized")


def _examples(params: QuantizeParams, served: Path) -> Examples | None:
    return None if params.calibration is None else read_examples(params.calibration, served)


def _left_out(examples: Examples | None, data: QuestionData | None) -> tuple[str, ...]:
    return tuple(sentence for each in (examples, data) if each is not None for sentence in each.left_out)


def _built(label: str, served: Path, builds: Builds, params: QuantizeParams) -> tuple[BuildResult, _Chosen]:
    """(the measured original, the requested build)."""
    candidate = requested_candidate(
        params.precision,
        params.int4_layers,
        builds.architecture.num_layers,
        algorithm=params.algorithm,
        head_bits=params.head_bits,
        block_size=params.block_size,
        is_symmetric=None if params.symmetry is None else params.symmetry == "symmetric",
    )
    folder = builds.build(candidate.name, candidate.recipe)
    before, found = builds.measured({label: served, candidate.name: folder})
    return before, _Chosen(found, folder, dict(builds.parameters(candidate.name)), (found,), (describe_build(found, before),))


def _searched(label: str, served: Path, builds: Builds, params: QuantizeParams) -> tuple[BuildResult, _Chosen]:
    """(what it was, the fastest build within the loss)."""
    algorithm = params.algorithm or "k-quant"
    found = search(builds, algorithm, params.max_quality_loss)
    before, *measured = builds.measured({label: served, **found.folders})
    best, why = choose(measured, params.max_quality_loss)
    parameters = {"algorithm": algorithm, **found.parameters[best.name]}
    return before, _Chosen(best, found.folders[best.name], parameters, tuple(measured), (*found.why, *why))


def _scores(
    before: Path, after: Path, params: QuantizeParams, questions: Sequence[Question], context: TaskContext
) -> dict[str, tuple[Measured, Measured]]:
    """The values of each metric, before and after."""
    one, two = (task_scores(who, each, params, questions, context) for who, each in (("before", before), ("after", after)))
    return {metric: (one[metric], two[metric]) for metric in one}


def _metrics(before: BuildResult, chosen: _Chosen, scores: dict[str, tuple[Measured, Measured]]) -> dict[str, float]:
    """Figures of what was chosen, under `before_` those of what it was."""
    metrics: dict[str, float] = {}
    for prefix, each in (("", chosen.measured), ("before_", before)):
        metrics |= {
            f"{prefix}perplexity_ratio": each.ratio,
            f"{prefix}size_bytes": float(each.size_bytes),
            f"{prefix}tokens_per_s_1": each.tokens_per_s[0],
            f"{prefix}tokens_per_s_8": each.tokens_per_s[1],
        }
    metrics["speed_over_before"] = chosen.measured.speed(before)
    if len(chosen.others) > 1:
        metrics["speed_over_int8"] = chosen.measured.speed(chosen.others[0])
    for metric, (one, two) in scores.items():
        metrics |= {metric: two.value, f"before_{metric}": one.value}
    return metrics


def _registered(
    name: str,
    base: ModelVersion,
    checkpoint: Path,
    chosen: _Chosen,
    metrics: dict[str, float],
    params: QuantizeParams,
    sha256: str | None,
    context: TaskContext,
) -> ModelVersion:
    context.stage(_REGISTERING)
    precision = Precision(chosen.parameters["precision"])
    with context.registry.staging() as staging:
        served, weights = staging / "served", staging / "checkpoint"
        shutil.copytree(chosen.folder, served)
        shutil.copytree(checkpoint, weights)
        output = Output(
            name=name,
            job=context.job,
            importer=str(JobKind.QUANTIZE),
            base=base,
            variants=[StagedVariant(precision, "cpu", served), StagedVariant.checkpoint(weights)],
            parameters={**params.model_dump(mode="json", exclude_none=True), "build": chosen.measured.name, **chosen.parameters},
            metrics=metrics,
            data_sha256=sha256,
        )
        return register(context.registry, output)


TASK = Quantize()
