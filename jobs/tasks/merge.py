"""Task `merge`: an adapter into its base, as a version that is served without it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, Field

from jobs.fields import FolderOrVersion, VersionName
from jobs.task import InvalidJob, JobKind, Outcome, Params, Plan, Problem, TaskContext
from jobs.tasks.checkpoints import BUILDING, REGISTERING, build, check_plain, is_adapter, materialise, merged, save_weights
from jobs.tasks.outputs import Output, checked_name, made_by, register
from jobs.tasks.preconditions import MERGING, check_installed, weights_of
from model_registry.aliases import folder_of
from model_registry.records import Precision


class MergeParams(Params):
    """Merges a LoRA or DoRA adapter into a model's weights."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"adapter": "my-model", "output": "my-merged"}]})

    adapter: FolderOrVersion = Field(min_length=1, description="A version with an adapter, or a folder in PEFT's layout.")
    model: VersionName | None = Field(None, description="The base; by default the one that the adapter's version was made from.")
    output: str | None = Field(None, description="Name of the model made; by default the base's with -merged.")
    precision: Precision = Field(Precision.AUTO, description="How the weights that are served are stored.")


class Merge:
    kind: ClassVar[JobKind] = JobKind.MERGE
    params: ClassVar[type[Params]] = MergeParams

    def plan(self, params: MergeParams, context: TaskContext) -> Plan:
        folder, base, name = _adapter_and_base(params, context)
        check_installed(MERGING, "adapter")
        check_plain(folder)
        weights = weights_of(context.registry.resolve(base), context, "model")
        summary = (*weights.summary, f"Merges {params.adapter} into {base}.", f"Registers it as {name}.")
        return Plan(summary, outputs=(name,), disk_bytes=weights.disk_bytes, download_bytes=weights.download_bytes)

    def stages(self, params: MergeParams, context: TaskContext) -> tuple[str, ...]:
        _, base, _ = _adapter_and_base(params, context)
        weights = weights_of(context.registry.resolve(base), context, "model")
        return (*weights.stages, "merging the adapter", BUILDING, REGISTERING)

    def run(self, params: MergeParams, context: TaskContext) -> Outcome:
        folder, label, name = _adapter_and_base(params, context)
        if (made := made_by(context.registry, name, context.job)) is not None:
            return Outcome(made.label, dict(made.manifest.metrics))
        checkpoint = materialise(context, label)
        context.stage("merging the adapter")
        with context.registry.staging() as staging:
            weights = staging / "checkpoint"
            save_weights(merged(checkpoint, folder), checkpoint, weights)
            built = build(context, weights, staging, params.precision)
            output = Output(
                name=name,
                job=context.job,
                importer=str(JobKind.MERGE),
                base=context.registry.resolve(label),
                variants=built.variants,
                parameters={**params.model_dump(mode="json", exclude_none=True), **built.parameters},
                metrics=built.metrics,
            )
            context.stage(REGISTERING)
            version = register(context.registry, output)
        return Outcome(version.label, dict(version.manifest.metrics))


def _adapter_and_base(params: MergeParams, context: TaskContext) -> tuple[Path, str, str]:
    """(the adapter's folder, the base's label, the output's name). Raises InvalidJob, RegistryError."""
    path = Path(params.adapter).expanduser()
    base = params.model
    if path.is_absolute():
        if not is_adapter(path):
            message = f"{params.adapter} holds no adapter_config.json with adapter_model.safetensors."
            raise InvalidJob([Problem(message, param="adapter")])
        folder = path
    else:
        version = context.registry.resolve(params.adapter)
        folder, base = folder_of(version), base or version.manifest.parent
    if base is None:
        raise InvalidJob([Problem("Name the model that the adapter was trained on.", param="model")])
    label = context.registry.resolve(base).label
    return folder, label, checked_name(params.output or f"{label.partition(':')[0]}-merged")


TASK = Merge()
