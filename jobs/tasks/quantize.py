"""Task `quantize`: a version built anew with other numbers of bits, measured against its source on this machine."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from jobs.job import InvalidJob, JobFailure, JobKind, Outcome, Plan, Problem
from jobs.outputs import Output, made_by, register
from jobs.tasks.checkpoints import materialise, served_variant
from jobs.tasks.convert import StagedProgress
from jobs.tasks.decode_speed import decode_speed
from jobs.tasks.protocol import Params, TaskContext
from jobs.tasks.quantization.candidates import Candidate, Group, Tried, choose, ladder
from model_registry.artifacts import StagedVariant
from model_registry.errors import InvalidName
from model_registry.importers.checkpoint import CheckpointImporter
from model_registry.importers.protocol import Imported, ImportOptions
from model_registry.names import check_model_name
from model_registry.records import CHECKPOINT, Precision

_TRIED, _REPORT = "tried.jsonl", "quantization.md"
_TRIAL_S = 45.0  # of a model with 135 million weights on two cores, for plans


class QuantizeParams(Params):
    """Builds a model with other numbers of bits. auto tries several and takes the fastest that loses little."""

    model: str = Field(min_length=1, description="The version whose weights are rounded.")
    output: str | None = Field(None, description="Name of the model made; by default the model's with -quantized.")
    precision: Literal["auto", "int8", "int4", "mixed", "fp32"] = Field("auto", description="mixed: int4 where int4_layers says.")
    int4_layers: list[Group] = Field(default_factory=list, description="For mixed: attention, gate, up, down; others get int8.")
    algorithm: Literal["rtn", "gptq"] = Field("rtn", description="How 4 bits are rounded: to the nearest, or by GPTQ.")
    block_size: Literal[32, 64] | None = Field(None, description="Weights per scale; by default 32 for 4 bits, 64 for 8.")
    head_bits: Literal[8, 32] = Field(8, description="Of the head and the embedding.")
    max_quality_loss: float = Field(1.03, ge=1, le=10, description="For auto: perplexity over the source's, at most.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.precision == "mixed") != bool(self.int4_layers):
            raise ValueError("int4_layers says what is int4 when precision is mixed, and only then")
        if self.algorithm == "gptq" and self.precision in ("int8", "fp32"):
            raise ValueError("gptq is for 4 bits; int8 and fp32 need none")
        if self.precision == "auto" and (self.block_size or self.head_bits != 8):
            raise ValueError("auto chooses by itself: leave block_size and head_bits out")
        return self

    def candidates(self) -> list[Candidate]:
        if self.precision == "auto":
            return ladder(uses_gptq=self.algorithm == "gptq")
        groups: tuple[Group, ...] = ("attention", "gate", "up", "down")
        int4 = groups if self.precision == "int4" else tuple(group for group in groups if group in self.int4_layers)
        is_float = self.precision == "fp32"
        gptq = self.algorithm == "gptq"
        return [Candidate(int4, is_float, self.head_bits, self.block_size, gptq)]


class Quantize:
    """What was tried is kept in the job's folder, and not tried again."""

    kind: ClassVar[JobKind] = JobKind.QUANTIZE
    params: ClassVar[type[Params]] = QuantizeParams

    def plan(self, params: QuantizeParams, context: TaskContext) -> Plan:
        version, name = context.registry.resolve(params.model), _output(params)
        served_variant(version)
        tries = params.candidates()
        summary = (
            f"Builds {version.label} as {', '.join(each.name for each in tries)}, and measures each: perplexity, size, speed.",
            f"Registers the {'fastest within the loss allowed' if len(tries) > 1 else 'build'} as {name}.",
        )
        seconds = len(tries) * _TRIAL_S * max(1.0, version.size_bytes / 150e6)
        disk_bytes = 3 * version.size_bytes
        return Plan(summary, num_steps=len(tries), duration_s=seconds, disk_bytes=disk_bytes, outputs=(name,))

    def run(self, params: QuantizeParams, context: TaskContext) -> Outcome:
        name = _output(params)
        if (made := made_by(context.registry, name, context.job)) is not None:
            return Outcome(made.label, dict(made.manifest.metrics), (_REPORT,), {"parameters": dict(made.manifest.parameters)})
        base = context.registry.resolve(params.model)
        checkpoint = materialise(context, base.label)
        candidates = params.candidates()
        tried = [_tried(each, checkpoint, context) for each in candidates]
        chosen, why = choose(tried, params.max_quality_loss if params.precision == "auto" else float("inf"))
        (context.folder / _REPORT).write_text(_report(base.label, tried, why), encoding="utf-8")
        for sentence in why:
            context.reporter.message(sentence)
        context.stage("building the chosen one")
        with context.registry.staging() as staging:
            served, weights = staging / "served", staging / "checkpoint"
            served.mkdir()
            candidate = next(each for each in candidates if each.name == chosen.name)
            imported = _build(candidate, checkpoint, served, context, measure=False)
            shutil.copytree(checkpoint, weights)
            metrics = {
                "perplexity_ratio": chosen.ratio,
                "size_bytes": float(chosen.size_bytes),
                "tokens_per_s_1": chosen.tokens_per_s[0],
                "tokens_per_s_8": chosen.tokens_per_s[1],
                "speed_over_int8": chosen.speed(tried[0]),
            }
            output = Output(
                name=name,
                job=context.job,
                importer=str(JobKind.QUANTIZE),
                base=base,
                variants=[
                    StagedVariant(imported.precision, imported.provider_family, served),
                    StagedVariant(Precision.FP32, CHECKPOINT, weights),
                ],
                parameters={**params.model_dump(mode="json", exclude_none=True), "build": chosen.name, **imported.parameters},
                metrics=metrics if len(candidates) > 1 else {n: v for n, v in metrics.items() if n != "speed_over_int8"},
            )
            version = register(context.registry, output)
        details = {"why": list(why), "tried": [asdict(each) for each in tried]}
        return Outcome(version.label, dict(version.manifest.metrics), (_REPORT,), details)


def _output(params: QuantizeParams) -> str:
    name = params.output or f"{params.model.partition(':')[0]}-quantized"
    try:
        check_model_name(name)
    except InvalidName as error:
        raise InvalidJob([Problem(error.message, param="output")]) from None
    return name


def _tried(candidate: Candidate, checkpoint: Path, context: TaskContext) -> Tried:
    """As it was kept, or tried now and kept."""
    path = context.folder / _TRIED
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for row in rows:
        if row["name"] == candidate.name:
            return Tried(**row | {"tokens_per_s": tuple(row["tokens_per_s"])})
    folder = context.folder / "build"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    context.reporter.message(f"Trying {candidate.name}.")
    imported = _build(candidate, checkpoint, folder, context, measure=True)
    if "perplexity" not in imported.metrics:
        message = "The model is too large to measure its perplexity here, so that builds cannot be compared."
        raise JobFailure(message, code="too_large")
    size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    speed = decode_speed(folder, context)
    shutil.rmtree(folder)
    ratio = imported.metrics["perplexity"] / imported.metrics["perplexity_source"]
    found = Tried(candidate.name, ratio, size_bytes, speed)
    beside = path.with_suffix(".new")
    beside.write_text("".join(json.dumps(row) + "\n" for row in [*rows, asdict(found)]))
    beside.replace(path)
    return found


def _build(candidate: Candidate, checkpoint: Path, folder: Path, context: TaskContext, *, measure: bool) -> Imported:
    num_layers = int(json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"])
    precision = Precision.FP32 if candidate.is_float else Precision.INT8
    options = ImportOptions(precision, measure=measure, recipe=candidate.recipe(num_layers))
    return CheckpointImporter().run(checkpoint, folder, options, StagedProgress(context))


def _report(label: str, tried: list[Tried], why: tuple[str, ...]) -> str:
    figures = [(each.name, f"{each.ratio:.4f}", f"{each.size_bytes / 1e6:.0f}", *map(round, each.tokens_per_s)) for each in tried]
    rows = [f"| {' | '.join(map(str, row))} |" for row in figures]
    head = ["| build | perplexity over source | MB | tokens/s, 1 client | tokens/s, 8 clients |", "|---|---|---|---|---|"]
    return "\n".join([f"# Quantization of {label}", "", *head, *rows, "", why[-1], ""])


TASK = Quantize()
