"""What jobs register: versions with their lineage. Owns the rules for their names and the manifest's record of the job."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jobs.process_limits import lifted
from jobs.task import InvalidJob, Problem
from model_registry.artifacts import StagedVariant
from model_registry.conversion.importer import Imported
from model_registry.errors import InvalidName
from model_registry.names import check_model_name
from model_registry.records import CANDIDATE, DECODER, Capability, Manifest, ModelVersion, VariantRole
from model_registry.registry import Registry
from runtime.trial import try_folder

_LIBRARIES = (
    *("slmops", "torch", "transformers", "trl", "peft", "bitsandbytes", "olive-ai"),
    *("onnx", "onnxruntime", "onnxruntime-genai", "gguf"),
)


@dataclass(frozen=True, slots=True)
class Output:
    """A version to be registered. importer: the kind of job; parameters: all of the job's, seed among them.

    base: the version that it was made from, whose architecture, context, capabilities and licence it has unless said otherwise;
    None: there is none, and architecture and context must be said.
    """

    name: str
    job: str
    importer: str
    base: ModelVersion | None
    variants: Sequence[StagedVariant]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    data_sha256: str | None = None
    architecture: str | None = None
    context_length: int | None = None
    capabilities: frozenset[Capability] | None = None


def checked_name(output: str) -> str:
    """The param `output`, if a model may have that name. Raises InvalidJob."""
    try:
        return check_model_name(output)
    except InvalidName as error:
        raise InvalidJob([Problem(error.message, param="output")]) from None


def made_by(registry: Registry, name: str, job: str) -> ModelVersion | None:
    """What this job registered before it was interrupted, if it did."""
    versions = [version for model in registry.models() if model.name == name for version in model.versions]
    return next((found for found in versions if found.manifest.source == source_of(job)), None)


def source_of(job: str) -> str:
    return f"job:{job}"


def register(registry: Registry, output: Output) -> ModelVersion:
    """Publishes it; a new version of a model that exists becomes its `candidate`, and `live` stays.

    Every build that would be served is loaded once before. Raises as `publish` does, and UnloadableModel.
    """
    base = output.base
    manifest = Manifest(
        warnings=_trial_warnings(output),
        source=source_of(output.job),
        importer=output.importer,
        architecture=output.architecture or (base.manifest.architecture if base else "unknown"),
        context_length=output.context_length or (base.manifest.context_length if base else 1),
        licence=base.manifest.licence if base else "unknown",
        parent=base.label if base else None,
        data_sha256=output.data_sha256,
        parameters=output.parameters,
        metrics=output.metrics,
        library_versions=library_versions(),
        capabilities=output.capabilities or (base.manifest.capabilities if base else DECODER),
    )
    return registry.publish(output.name, manifest, output.variants, alias=CANDIDATE)


def try_build(folder: Path, imported: Imported) -> str | None:
    """As `runtime.trial.try_folder`, in a worker to which the job's memory limit does not apply, since the job itself only
    waits.
    """
    with lifted():
        return try_folder(folder, imported)


def _trial_warnings(output: Output) -> tuple[str, ...]:
    """The reason for each build that could not be tried on this machine."""
    reasons = [
        try_build(each.folder, Imported("", 1, each.precision, each.provider_family, graph=each.graph))
        for each in output.variants
        if each.role is VariantRole.SERVE and each.graph is not None
    ]
    return tuple(why for why in reasons if why is not None)


def library_versions() -> dict[str, str]:
    """The versions of installed libraries that may have affected the result."""
    found = {}
    for library in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[library] = version(library)
    return found
