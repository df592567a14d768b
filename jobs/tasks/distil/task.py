"""Task `distil`: a smaller model taught by a larger one. Owns the way from prompts through answers to a registered student."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError

from jobs.param_errors import problems_of
from jobs.task import InvalidJob, JobKind, Outcome, Params, Plan, Problem, TaskContext
from jobs.tasks.checkpoints import BUILDING, FETCHING, REGISTERING, build, materialise, merged, save_weights, served_variant
from jobs.tasks.distil.comparing import compared
from jobs.tasks.distil.cutting import cut
from jobs.tasks.distil.parameters import Cut, DistilParams
from jobs.tasks.distil.teaching import taught
from jobs.tasks.evaluate.endpoints import Endpoint
from jobs.tasks.evaluate.questions import Question, QuestionData, read_questions
from jobs.tasks.evaluate.targets import check_target
from jobs.tasks.finetune.material import Material, prepare
from jobs.tasks.finetune.parameters import Backend, FinetuneParams, Method
from jobs.tasks.finetune.trainer import Teacher, Trained, train
from jobs.tasks.outputs import Output, checked_name, made_by, register
from jobs.tasks.preconditions import TRAINING, Weights, check_installed, weights_of
from jobs.tasks.vendors.hugging_face import check_four_bits
from model_registry.records import ModelVersion

_TOKENS_PER_S = 250.0
_BYTES_ON_DISK = 10  # per byte of the served int8 build: float32 weights, moments and checkpoints, as of a tuning
_CHARS_PER_TOKEN = 4.0  # of English, roughly


class Distil:
    """Answers and checkpoints are kept: an interrupted run sends no prompt twice and ends with the same student."""

    kind: ClassVar[JobKind] = JobKind.DISTIL
    params: ClassVar[type[Params]] = DistilParams

    def plan(self, params: DistilParams, context: TaskContext) -> Plan:
        name, teacher = _output(params, context), check_target(params.teacher, context, "teacher")
        check_installed(TRAINING, "student")
        base, data = _base(params, context), _questions(params.data)
        weights = _weights(params, base, context)
        questions, left_out = data.questions, data.left_out
        tune = _tuning(params, base.label)
        if params.logits is not None:
            _check_vocabulary(params, base, context)
        if params.judge is not None:
            check_target(params.judge, context, "judge")
        if params.validation:
            left_out += _questions(params.validation).left_out
        num_answers = len(questions) * params.num_samples
        tokens = num_answers * params.num_tokens
        summary = [f"Sends {len(questions)} prompts to {teacher}, {params.num_samples} times each: at most {tokens} tokens."]
        if isinstance(params.teacher, Endpoint) and params.teacher.price_per_million_tokens is not None:
            summary.append(_cost(params.teacher.price_per_million_tokens, tokens, questions, params.num_samples))
        student = f"{params.student.layers} layers of {base.label}" if isinstance(params.student, Cut) else base.label
        summary += [sentence for each in weights for sentence in each.summary]
        summary += [f"Tunes {student} on what is kept ({tune.method}, {tune.epochs:g} passes).", f"Registers it as {name}."]
        seconds = tokens / _TOKENS_PER_S
        if isinstance(params.teacher, Endpoint) and params.teacher.requests_per_minute:
            seconds = max(seconds, 60 * num_answers / params.teacher.requests_per_minute)
        downloads = [each.download_bytes for each in weights]
        return Plan(
            tuple(summary),
            num_steps=num_answers,
            duration_s=seconds,
            disk_bytes=_BYTES_ON_DISK * served_variant(base).size_bytes + sum(each.disk_bytes for each in weights),
            download_bytes=None if None in downloads else sum(each or 0 for each in downloads),
            outputs=(name,),
            warnings=left_out,
        )

    def stages(self, params: DistilParams, context: TaskContext) -> tuple[str, ...]:
        weights = _weights(params, _base(params, context), context)
        grading = () if params.judge is None else ("grading",)
        fetching = (FETCHING,) if any(each.stages for each in weights) else ()
        cutting = () if isinstance(params.student, str) else ("choosing layers",)
        before = ("querying the teacher", "filtering", *grading, "preparing the student", *fetching, *cutting)
        comparing = () if params.validation is None else ("comparing",)
        return (*before, "loading the model", "training", "writing the weights", BUILDING, *comparing, REGISTERING)

    def run(self, params: DistilParams, context: TaskContext) -> Outcome:
        name, base = _output(params, context), _base(params, context)
        if (made := made_by(context.registry, name, context.job)) is not None:
            return Outcome(made.label, dict(made.manifest.metrics), ("report.md", "report.html"))
        data = _questions(params.data)
        questions = data.questions
        for sentence in data.left_out:
            context.reporter.message(sentence, "warning")
        lessons, counts = taught(params, questions, context)
        served = served_variant(base).folder
        tune = _tuning(params, base.label).model_copy(update={"data": str(lessons)})
        context.stage("preparing the student")
        training, _ = prepare(tune, served, context.planned)
        checkpoint, stay = _student(params, base, training, context)
        teacher = None
        if params.logits is not None:
            assert isinstance(params.teacher, str)
            teacher = Teacher(materialise(context, params.teacher), params.logits.alpha, params.logits.temperature)
        trained = train(tune, checkpoint, training, None, context, teacher)
        with context.registry.staging() as staging:
            weights = staging / "checkpoint"
            context.stage("writing the weights")
            model = trained.model if tune.method == "full" else _merged(trained, checkpoint, context.folder / "adapter")
            save_weights(model, checkpoint, weights)
            built = build(context, weights, staging, tune.served_precision)
            folder = built.variants[0].folder
            metrics, files = compared(params, folder, served, stay, checkpoint, staging, context)
            output = Output(
                name=name,
                job=context.job,
                importer=str(JobKind.DISTIL),
                base=base,
                variants=built.variants,
                parameters={**params.model_dump(mode="json", exclude_none=True), **built.parameters, "layers": stay, **counts},
                metrics={**built.metrics, **trained.metrics, **metrics},
                data_sha256=training.sha256,
            )
            context.stage(REGISTERING)
            version = register(context.registry, output)
        return Outcome(version.label, dict(version.manifest.metrics), files, {"counts": counts, "layers": stay})


def _weights(params: DistilParams, base: ModelVersion, context: TaskContext) -> list[Weights]:
    """Of the student, and of a teacher whose logits are learned."""
    found = [weights_of(base, context, "student")]
    if params.logits is not None and isinstance(params.teacher, str):
        teacher = context.registry.resolve(params.teacher)
        found += [weights_of(teacher, context, "teacher")] if teacher.digest != base.digest else []
    return found


def _cost(price: float, tokens: int, questions: Sequence[Question], num_samples: int) -> str:
    """price: of a million tokens. tokens: of all answers, at most."""
    chars = sum(len(json.dumps([list(each.messages), list(each.tools)], ensure_ascii=False)) for each in questions)
    prompts = chars / _CHARS_PER_TOKEN * num_samples
    return f"Costs at most {_money(tokens / 1e6 * price)} for answers, and about {_money(prompts / 1e6 * price)} for prompts."


def _money(amount: float) -> str:
    return f"{amount:.2f}" if amount >= 1 or amount == 0 else f"{amount:.2g}"


def _output(params: DistilParams, context: TaskContext) -> str:
    teacher = params.teacher if isinstance(params.teacher, str) else params.teacher.model or "model"
    return checked_name(params.output or f"{teacher.partition(':')[0]}-student")


def _base(params: DistilParams, context: TaskContext) -> ModelVersion:
    """The version that the student begins as: itself, or the teacher that it is cut from."""
    if isinstance(params.student, str):
        return context.registry.resolve(params.student)
    assert isinstance(params.teacher, str)
    version = context.registry.resolve(params.teacher)
    config = json.loads((served_variant(version).folder / "genai_config.json").read_text(encoding="utf-8"))
    total = int(config["model"]["decoder"]["num_hidden_layers"])
    if params.student.layers >= total:
        message = f"{version.label} has {total} layers: a student cut from it has fewer."
        raise InvalidJob([Problem(message, param="student.layers")])
    return version


def _questions(path: str) -> QuestionData:
    return read_questions(Path(path).expanduser(), None)


def _tuning(params: DistilParams, student: str) -> FinetuneParams:
    """The params of the tuning. Raises InvalidJob."""
    method = {"method": "full"} if isinstance(params.student, Cut) else {}
    fixed = {"model": student, "data": params.data, "seed": params.seed}
    for name in fixed:
        if name in params.training:
            raise InvalidJob([Problem(f"training.{name} is set by the distillation: leave it out.", param=f"training.{name}")])
    try:
        tune = FinetuneParams(**{**method, **params.training, **fixed})
        _check_training(params, tune)
        return tune
    except ValidationError as error:
        raise InvalidJob([each.within("training") for each in problems_of(error, FinetuneParams, "finetune")]) from None


def _check_training(params: DistilParams, tune: FinetuneParams) -> None:
    """What a distillation has no use for would be passed over. Raises InvalidJob."""
    if tune.method is Method.QLORA:
        check_four_bits()
    meaningless = {
        "backend": tune.backend is Backend.OLIVE,
        "objective": tune.objective == "dpo",
        "validation": tune.validation is not None,
        "text_template": tune.text_template is not None,
        "loss": tune.loss is not None and params.logits is not None,
    }
    for name in [name for name, is_requested in meaningless.items() if is_requested]:
        message = f"training.{name} has no meaning in a distillation{' by logits' if name == 'loss' else ''}: leave it out."
        raise InvalidJob([Problem(message, param=f"training.{name}")])


def _student(params: DistilParams, base: ModelVersion, training: Material, context: TaskContext) -> tuple[Path, list[int]]:
    """(its checkpoint, the teacher's layers that it has; none when it is a model of its own)."""
    checkpoint = materialise(context, base.label)
    if isinstance(params.student, str):
        return checkpoint, []
    folder, note = context.folder / "student", context.folder / "layers.json"
    if not note.exists():
        stay = cut(checkpoint, params.student.layers, training.tokens, folder, context)
        note.write_text(json.dumps(stay))
    stay = json.loads(note.read_text())
    return folder, stay


def _merged(trained: Trained, checkpoint: Path, adapter: Path) -> Any:
    """Into the base's own weights, whatever precision it was held in meanwhile."""
    trained.save_adapter(adapter)
    return merged(checkpoint, adapter)


def _check_vocabulary(params: DistilParams, base: ModelVersion, context: TaskContext) -> None:
    """Checks the request before any prompt is sent. Raises InvalidJob."""
    assert isinstance(params.teacher, str)
    versions = (context.registry.resolve(params.teacher), base)
    teacher, student = ((served_variant(version).folder / "tokenizer.json").read_bytes() for version in versions)
    if teacher != student:
        message = "Teacher and student have different tokenizers, so that logits cannot be compared. Leave logits out."
        raise InvalidJob([Problem(message, param="logits")])


TASK = Distil()
