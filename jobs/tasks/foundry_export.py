"""Task `foundry-export`: a version as a folder that Foundry Local loads, with its `inference_model.json`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, Field

from jobs.fields import OutputFolder, VersionName
from jobs.task import InvalidJob, JobKind, Outcome, Params, Plan, Problem, TaskContext
from jobs.tasks.checkpoints import served_variant
from model_registry.records import ModelVersion
from runtime.engines.model_folder import BadModelFolder, ModelFolder, read_model_folder
from runtime.protocol.errors import InvalidRequest
from runtime.protocol.request import ChatPrompt
from runtime.text.preparation import ModelPreparation

_MOVED = "moved"  # a mark in the job's folder: an export at the destination is this job's
_CONTENT = "{Content}"  # what Foundry Local puts a message in place of


class FoundryExportParams(Params):
    """Exports a version as a folder that Foundry Local loads."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "my-model"}]})

    model: VersionName = Field(min_length=1, description="A version of the registry.")
    folder: OutputFolder | None = Field(
        None, description="Where to, in `exports` of the home or jobs.output_roots; must not exist. By default in the job's own."
    )
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="The model's name there.")


class FoundryExport:
    """Written beside its place and moved there whole; an attempt after that finds it."""

    kind: ClassVar[JobKind] = JobKind.FOUNDRY_EXPORT
    params: ClassVar[type[Params]] = FoundryExportParams

    def plan(self, params: FoundryExportParams, context: TaskContext) -> Plan:
        version = context.registry.resolve(params.model)
        target = _target(params, context)
        prompt_template(_folder_of(version))
        size = served_variant(version).size_bytes
        place = target if params.folder else "the job's folder"
        summary = (f"Copies {version.label} to {place}.", "Writes inference_model.json with the model's prompt template.")
        return Plan(summary, disk_bytes=size)

    def stages(self, params: FoundryExportParams, context: TaskContext) -> tuple[str, ...]:
        return ("copying",)

    def run(self, params: FoundryExportParams, context: TaskContext) -> Outcome:
        version = context.registry.resolve(params.model)
        name, moved = params.name or version.model, context.folder / _MOVED
        if moved.exists() and (target := _place(params, context)).exists():
            return _outcome(target, name)
        folder, target = _folder_of(version), _target(params, context)
        context.stage("copying")
        beside = target.with_name(f".{target.name}.{context.job}")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        sources = sorted(path for path in folder.path.rglob("*") if path.is_file())
        for number, source in enumerate(sources, 1):
            copy = beside / source.relative_to(folder.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            context.progress(number, len(sources), unit="files")
        about = {"Name": name, "PromptTemplate": prompt_template(folder)}
        (beside / "inference_model.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        moved.touch()
        beside.rename(target)
        return _outcome(target, name)


def _outcome(target: Path, name: str) -> Outcome:
    size = float(sum(path.stat().st_size for path in target.rglob("*") if path.is_file()))
    return Outcome(None, {"size_bytes": size}, details={"folder": str(target), "name": name})


def prompt_template(folder: ModelFolder) -> dict[str, str] | None:
    """The prompt template in Foundry Local's form: `prompt` for a user's message with the beginning of its answer.

    None for base models.
    """
    if folder.chat_template is None:
        return None
    template = ModelPreparation(folder.chat_template, folder.special_tokens)
    prompt = ChatPrompt(messages=[{"role": "user", "content": _CONTENT}])
    try:
        return {"assistant": _CONTENT, "prompt": template.render(prompt)}
    except InvalidRequest as error:
        message = f"The model's chat template cannot be exported: {error.message}"
        raise InvalidJob([Problem(message, param="model")]) from None
    finally:
        template.close()


def _folder_of(version: ModelVersion) -> ModelFolder:
    try:
        return read_model_folder(served_variant(version).folder)
    except BadModelFolder as error:
        raise InvalidJob([Problem(f"{version.label} cannot be exported: {error}.", param="model")]) from None


def _place(params: FoundryExportParams, context: TaskContext) -> Path:
    return Path(params.folder).expanduser() if params.folder else context.folder / "export"


def _target(params: FoundryExportParams, context: TaskContext) -> Path:
    """Raises InvalidJob for one that cannot be written."""
    target = _place(params, context)
    if not target.is_absolute():
        raise InvalidJob([Problem("folder must be a whole path, from the root.", param="folder")])
    if target.exists():
        raise InvalidJob([Problem(f"{target} exists: name another folder, or remove it.", param="folder")])
    return target


TASK = FoundryExport()
