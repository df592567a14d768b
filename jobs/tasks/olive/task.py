"""Task `olive`: a workflow of Olive, run as it is, and what it makes registered. Owns the order; the rest is beside it."""

from __future__ import annotations

import shutil
from contextlib import chdir
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from jobs.fields import InputFile, VersionName
from jobs.permissions import NotAllowed, path_under
from jobs.task import InvalidJob, JobKind, Outcome, Params, Plan, Problem, TaskContext
from jobs.tasks.checkpoints import REGISTERING, materialise
from jobs.tasks.olive.allowlist import check_runs_no_code, code_in, model_path_of
from jobs.tasks.olive.running import Made, made_of, run_workflow, servable
from jobs.tasks.olive.workflow import check, pass_types, placed, read_workflow, sha256_of
from jobs.tasks.outputs import Output, checked_name, made_by, register
from jobs.tasks.preconditions import Weights, weights_of
from jobs.tasks.vendors.olive import EXTRA, import_olive
from model_registry.errors import UnsupportedModel
from model_registry.records import CANDIDATE, ModelVersion

_OUTPUT = "output"  # in the job's folder: where Olive writes


class OliveParams(Params):
    """Runs an Olive workflow and registers the models it makes."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"workflow": "workflow.yaml", "output": "my-model", "model": "smollm2-135m"}]}
    )

    workflow: InputFile | dict[str, Any] = Field(
        description="The workflow as an object, or a JSON or YAML file: uploaded, or in jobs.data_roots."
    )
    output: str = Field(min_length=1, description="Name of the model made; several become versions of it.")
    model: VersionName | None = Field(None, description="A version whose checkpoint takes the place of the workflow's input model.")


class Olive:
    """A killed job continues from Olive's cache, which is in its folder."""

    kind: ClassVar[JobKind] = JobKind.OLIVE
    params: ClassVar[type[Params]] = OliveParams

    def plan(self, params: OliveParams, context: TaskContext) -> Plan:
        if find_spec("olive") is None:
            raise InvalidJob([Problem(f"Olive is not installed: {EXTRA}.", param="workflow", code="missing_package")])
        checked_name(params.output)
        base = context.registry.resolve(params.model) if params.model else None
        weights = weights_of(base, context, "model") if base else Weights()
        workflow = read_workflow(params.workflow)
        _check_code(workflow, params, context)
        own = placed(workflow, context.folder, Path("checkpoint") if base else None)
        import_olive(context.folder / "scratch")
        with chdir(_place_of(params, context)):
            check(own)
        passes = [f"{name} ({kind})" for name, kind in pass_types(own)]
        begins = f"Begins from {base.label}'s checkpoint." if base else "Begins from the workflow's own model."
        summary = (*weights.summary, begins, f"Runs {', then '.join(passes)}.", f"Registers what can be served as {params.output}.")
        return Plan(
            summary,
            num_steps=len(passes),
            outputs=(params.output,),
            disk_bytes=weights.disk_bytes or None,
            download_bytes=weights.download_bytes,
        )

    def stages(self, params: OliveParams, context: TaskContext) -> tuple[str, ...]:
        weights = weights_of(context.registry.resolve(params.model), context, "model") if params.model else Weights()
        passes = (f"pass {name} ({kind})" for name, kind in pass_types(read_workflow(params.workflow)))
        return (*weights.stages, "loading Olive", *passes, REGISTERING)

    def run(self, params: OliveParams, context: TaskContext) -> Outcome:
        if (made := made_by(context.registry, params.output, context.job)) is not None:
            return Outcome(made.label, dict(made.manifest.metrics))
        base = context.registry.resolve(params.model) if params.model else None
        workflow = read_workflow(params.workflow)
        _check_code(workflow, params, context)
        checkpoint = materialise(context, base.label) if base else None
        if checkpoint is not None:
            _check_folder(checkpoint, "model", context)
        own = placed(workflow, context.folder, checkpoint)
        context.stage("loading Olive")
        scratch = context.folder / "scratch"
        olive = import_olive(scratch)
        shutil.rmtree(context.folder / _OUTPUT, ignore_errors=True)  # of an attempt that was cut; its cache stays
        with chdir(_place_of(params, context)):
            output = run_workflow(olive, own, context)
        models = [made_of(each) for each in output.get_output_models()]
        context.stage(REGISTERING)
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
        requested = {**params.model_dump(mode="json", exclude_none=True), "workflow_sha256": workflow_sha256}
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
                    parameters={**requested, **found.parameters},
                    metrics=found.metrics,
                    data_sha256=workflow_sha256,
                    architecture=found.architecture,
                    context_length=found.context_length,
                )
                registered.append(register(context.registry, output))
        if len(registered) > 1:
            context.registry.set_alias(params.output, CANDIDATE, registered[0].number)
        return registered, kept


def _check_code(workflow: dict[str, Any], params: OliveParams, context: TaskContext) -> None:
    """Raises InvalidJob for a workflow that could run code, unless the configuration allows that. Runs before Olive is imported."""
    if context.grants.allow_code:
        return
    check_runs_no_code(workflow, has_own_model=params.model is not None)
    given = None if params.model is not None else model_path_of(workflow)
    if given is None:
        return
    path, place = _place_of(params, context) / Path(given).expanduser(), "workflow.input_model.model_path"
    try:
        path = path_under(str(path), (*context.grants.data_roots, context.folder))
    except NotAllowed as error:
        remedy = "List its folder in jobs.data_roots of slmops.toml, or name a version in `model`."
        raise InvalidJob([Problem(f"{place}: the path {given!r} {error}. {remedy}", param=place, code="not_allowed")]) from None
    if path.is_dir():
        _check_folder(path, place, context)
    elif path.suffix != ".onnx":
        raise InvalidJob([Problem(f"{place}: {path.name} is neither a checkpoint's folder nor an .onnx file.", param=place)])


def _check_folder(folder: Path, place: str, context: TaskContext) -> None:
    """Raises InvalidJob when reading it could run code, unless the configuration allows that."""
    if not context.grants.allow_code and (why := code_in(folder)) is not None:
        remedy = "Choose another, or set allow_code = true in [jobs] of slmops.toml where such code may run."
        raise InvalidJob([Problem(f"{place}: {folder.name} {why}. {remedy}", param=place, code="code_not_allowed")])


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
