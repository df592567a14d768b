"""Task `olive`: a workflow of Olive, run as it is, and what it makes registered. Owns the order; the rest is `olive_workflows`."""

from __future__ import annotations

import shutil
from contextlib import chdir
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from jobs.job import InvalidJob, JobKind, Outcome, Plan, Problem
from jobs.outputs import Output, checked_name, made_by, register
from jobs.tasks.checkpoints import materialise
from jobs.tasks.olive_workflows.made import Made, made_of, servable
from jobs.tasks.olive_workflows.running import run_workflow
from jobs.tasks.olive_workflows.silence import EXTRA, import_olive
from jobs.tasks.olive_workflows.workflow import check, pass_types, placed, read_workflow, sha256_of
from jobs.tasks.protocol import Params, TaskContext
from model_registry.errors import UnsupportedModel
from model_registry.records import CANDIDATE, ModelVersion

_OUTPUT = "output"  # in the job's folder: where Olive writes


class OliveParams(Params):
    """Runs a workflow of Olive, and registers the models that it makes."""

    workflow: str | dict[str, Any] = Field(description="A file (JSON or YAML) on the daemon's machine, or its object.")
    output: str = Field(min_length=1, description="Name of the model made; several become versions of it.")
    model: str | None = Field(None, description="A version whose checkpoint takes the place of the workflow's input model.")


class Olive:
    """A job that was killed goes on from Olive's cache, which lies in its folder."""

    kind: ClassVar[JobKind] = JobKind.OLIVE
    params: ClassVar[type[Params]] = OliveParams

    def plan(self, params: OliveParams, context: TaskContext) -> Plan:
        if find_spec("olive") is None:
            raise InvalidJob([Problem(f"Olive is not installed: {EXTRA}.", param="workflow", code="missing_package")])
        checked_name(params.output)
        base = context.registry.resolve(params.model) if params.model else None
        workflow = read_workflow(params.workflow)
        own = placed(workflow, context.folder, Path("checkpoint") if base else None)
        import_olive(context.folder / "scratch")
        with chdir(_place_of(params, context)):
            check(own)
        passes = [f"{name} ({kind})" for name, kind in pass_types(own)]
        begins = f"Begins from {base.label}'s checkpoint." if base else "Begins from the workflow's own model."
        summary = (begins, f"Runs {', then '.join(passes)}.", f"Registers what can be served as {params.output}.")
        return Plan(summary, num_steps=len(passes), outputs=(params.output,))

    def run(self, params: OliveParams, context: TaskContext) -> Outcome:
        if (made := made_by(context.registry, params.output, context.job)) is not None:
            return Outcome(made.label, dict(made.manifest.metrics))
        base = context.registry.resolve(params.model) if params.model else None
        checkpoint = materialise(context, base.label) if base else None
        workflow = read_workflow(params.workflow)
        own = placed(workflow, context.folder, checkpoint)
        context.stage("loading Olive")
        scratch = context.folder / "scratch"
        olive = import_olive(scratch)
        shutil.rmtree(context.folder / _OUTPUT, ignore_errors=True)  # of an attempt that was cut; its cache stays
        with chdir(_place_of(params, context)):
            output = run_workflow(olive, own, context)
        models = [made_of(each) for each in output.get_output_models()]
        registered, kept = self._register(models, checkpoint or _source_of(own), base, params, sha256_of(workflow), context)
        shutil.rmtree(scratch, ignore_errors=True)
        written = sorted(path for path in (context.folder / _OUTPUT).rglob("*") if path.is_file())
        files = [path.relative_to(context.folder).as_posix() for path in written]
        details = {"registered": [each.label for each in registered], "kept": kept}
        if not registered:
            return Outcome(None, models[0].metrics, tuple(files), details)
        return Outcome(registered[0].label, dict(registered[0].manifest.metrics), tuple(files), details)

    def _register(
        self,
        models: list[Made],
        source: Path | None,
        base: ModelVersion | None,
        params: OliveParams,
        workflow_sha256: str,
        context: TaskContext,
    ) -> tuple[list[ModelVersion], list[str]]:
        """(versions, best first; for each model that stays a file, where and why)."""
        registered, kept = [], []
        asked = {**params.model_dump(mode="json", exclude_none=True), "workflow_sha256": workflow_sha256}
        for model in models:
            with context.registry.staging() as staging:
                try:
                    found = servable(model, source, staging, context)
                except UnsupportedModel as error:
                    kept.append(f"{model.path}: {error.message}")
                    context.reporter.message(f"A model stays in the job's folder, unregistered: {error.message}", "warning")
                    continue
                output = Output(
                    name=params.output,
                    job=context.job,
                    importer=str(JobKind.OLIVE),
                    base=base,
                    variants=found.variants,
                    parameters={**asked, **found.parameters},
                    metrics=found.metrics,
                    data_sha256=workflow_sha256,
                    architecture=found.architecture,
                    context_length=found.context_length,
                )
                registered.append(register(context.registry, output))
        if len(registered) > 1:
            context.registry.set_alias(params.output, CANDIDATE, registered[0].number)
        return registered, kept


def _place_of(params: OliveParams, context: TaskContext) -> Path:
    """What relative paths in the workflow begin from: its file's folder, else the job's."""
    return Path(params.workflow).expanduser().parent if isinstance(params.workflow, str) else context.folder


def _source_of(workflow: dict[str, Any]) -> Path | None:
    """The workflow's own model, where it is a checkpoint on this machine."""
    given = workflow.get("input_model") or {}
    settings = given.get("config", given) if isinstance(given, dict) else {}
    path = settings.get("model_path") if isinstance(settings, dict) else None
    folder = Path(path) if isinstance(path, str) else None
    return folder if folder is not None and (folder / "config.json").is_file() and any(folder.glob("*.safetensors")) else None


TASK = Olive()
