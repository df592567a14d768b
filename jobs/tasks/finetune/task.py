"""Task `finetune`: a model tuned on a user's data. Owns the way from data to a registered version."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from jobs.task import JobKind, Outcome, Params, Plan, TaskContext
from jobs.tasks.checkpoints import BUILDING, REGISTERING, build, materialise, merged, save_weights, served_variant
from jobs.tasks.finetune import estimate
from jobs.tasks.finetune.estimate import num_steps
from jobs.tasks.finetune.material import Material, Sizes, measure, prepare
from jobs.tasks.finetune.olive_pass import check_olive, train_with_olive
from jobs.tasks.finetune.parameters import Backend, FinetuneParams, Method
from jobs.tasks.finetune.trainer import Trained, loss_named
from jobs.tasks.finetune.trainer import train as train_with_trl
from jobs.tasks.outputs import Output, checked_name, made_by, register
from jobs.tasks.preconditions import TRAINING, check_installed, weights_of
from jobs.tasks.vendors.hugging_face import check_four_bits
from model_registry.artifacts import StagedVariant
from model_registry.records import ModelVersion, Precision

_REPORT = "training.json"
_NAMES = {Backend.TRL: "TRL", Backend.OLIVE: "Olive"}


class Finetune:
    """Goes on from its checkpoints with the same result; a version that it registered before it was interrupted is found."""

    kind: ClassVar[JobKind] = JobKind.FINETUNE
    params: ClassVar[type[Params]] = FinetuneParams

    def plan(self, params: FinetuneParams, context: TaskContext) -> Plan:
        base, name = context.registry.resolve(params.model), _output(params)
        check_installed(TRAINING, "model")
        weights = weights_of(base, context, "model")
        folder = served_variant(base).folder
        training, validation = measure(params, folder, context.planned)
        if params.method is Method.QLORA:
            check_four_bits()
        if params.backend is Backend.OLIVE:
            check_olive()
        if params.loss:
            loss_named(params.loss)
        steps = num_steps(params, training)
        shape = _shape(folder, base)
        passes = _passes(params, training)
        batch_tokens = params.batch_size * training.longest * (2 if params.objective == "dpo" else 1)
        summary = [
            f"Tunes {base.label} on {training.num_examples} examples of {training.num_tokens} tokens "
            f"({params.objective}, {params.method}, by {_NAMES[params.backend]}), {passes:.1f} passes in {steps} steps.",
            *weights.summary,
            f"Registers the tuned model as {name}" + ("." if params.method is Method.FULL else ", with its adapter."),
        ]
        if validation is not None:
            summary.insert(1, f"Measures the loss on {validation.num_examples} examples that are not learned.")
        return Plan(
            tuple(summary),
            num_steps=steps,
            duration_s=estimate.seconds(shape, params.method, training.num_tokens * passes, context.threads),
            memory_bytes=estimate.memory_bytes(shape, params.method, batch_tokens, checkpointing=params.gradient_checkpointing),
            disk_bytes=shape.num_weights * (24 if params.method is Method.FULL else 10) + weights.disk_bytes,
            download_bytes=weights.download_bytes,
            outputs=(name,),
            warnings=_left_out(training, validation),
        )

    def stages(self, params: FinetuneParams, context: TaskContext) -> tuple[str, ...]:
        weights = weights_of(context.registry.resolve(params.model), context, "model")
        training = ("training",) if params.backend is Backend.OLIVE else ("loading the model", "training")
        merging = () if params.method is Method.FULL else ("merging the adapter",)
        return ("reading the data", *weights.stages, *training, *merging, "writing the weights", BUILDING, REGISTERING)

    def run(self, params: FinetuneParams, context: TaskContext) -> Outcome:
        name = _output(params)
        if (made := made_by(context.registry, name, context.job)) is not None:
            return _outcome(made)
        base = context.registry.resolve(params.model)
        context.stage("reading the data")
        training, validation = prepare(params, served_variant(base).folder, context.planned)
        for sentence in _left_out(training, validation):
            context.reporter.message(sentence, "warning")
        checkpoint = materialise(context, base.label)

        train = train_with_olive if params.backend is Backend.OLIVE else train_with_trl
        begun = time.monotonic()
        trained = train(params, checkpoint, training, validation, context)
        seconds = time.monotonic() - begun
        _write_report(context.folder / _REPORT, trained.history)
        figures = {"trained_tokens": _trained_tokens(params, training), "train_s": seconds}
        return _outcome(_registered(params, base, checkpoint, trained, figures, training.sha256, context))


def _registered(
    params: FinetuneParams,
    base: ModelVersion,
    checkpoint: Path,
    trained: Trained,
    figures: Mapping[str, float],
    data_sha256: str,
    context: TaskContext,
) -> ModelVersion:
    """The tuned weights as a version, an adapter beside the weights that it is merged into. figures: of the training."""
    with context.registry.staging() as staging:
        variants: tuple[StagedVariant, ...] = ()
        model = trained.model
        if params.method is not Method.FULL:
            context.stage("merging the adapter")
            adapter = staging / "adapter"
            trained.save_adapter(adapter)
            variants = (StagedVariant.adapter(adapter),)
            model = merged(checkpoint, adapter)
        context.stage("writing the weights")
        weights = staging / "checkpoint"
        save_weights(model, checkpoint, weights)
        built = build(context, weights, staging, params.served_precision)
        output = Output(
            name=_output(params),
            job=context.job,
            importer=str(JobKind.FINETUNE),
            base=base,
            variants=[*built.variants, *variants],
            parameters={**params.model_dump(mode="json", exclude_none=True), **built.parameters},
            metrics={**trained.metrics, **built.metrics, **figures},
            data_sha256=data_sha256,
        )
        context.stage(REGISTERING)
        return register(context.registry, output)


def _output(params: FinetuneParams) -> str:
    return checked_name(params.output or f"{params.model.partition(':')[0]}-tuned")


def _left_out(training: Material | Sizes, validation: Material | Sizes | None) -> tuple[str, ...]:
    return training.left_out + (() if validation is None else validation.left_out)


def _trained_tokens(params: FinetuneParams, training: Material) -> float:
    return round(training.num_tokens * _passes(params, training))


def _passes(params: FinetuneParams, training: Material | Sizes) -> float:
    per_epoch = estimate.steps_per_epoch(training.num_rows, params.batch_size, params.gradient_accumulation)
    return num_steps(params, training) / per_epoch


def _shape(folder: Path, base: ModelVersion) -> estimate.Shape:
    decoder = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
    layers = decoder["decoder"]
    hidden, vocabulary = int(layers["hidden_size"]), int(decoder["vocab_size"])
    served = served_variant(base)
    bytes_per_weight = 4 if served.precision is Precision.FP32 else 1  # int8 builds, with their scales; others are close to it
    num_weights = max(served.size_bytes // bytes_per_weight, hidden * vocabulary)
    return estimate.Shape(num_weights, hidden, int(layers["num_hidden_layers"]), vocabulary)


def _write_report(path: Path, history: list[dict[str, float]]) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(history), encoding="utf-8")
    beside.replace(path)


def _outcome(version: ModelVersion) -> Outcome:
    details: dict[str, Any] = {"parameters": dict(version.manifest.parameters)}
    return Outcome(version.label, dict(version.manifest.metrics), files=(_REPORT,), details=details)


TASK = Finetune()
