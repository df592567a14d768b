"""Records of the registry as plain JSON values with stable keys: what routes answer and what `--json` prints.

The one place that knows these keys. Figures that are no number become None, as JSON has nothing for them. Times are ISO 8601, UTC.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from typing_extensions import TypedDict  # pydantic does not read that of Python 3.11

from model_registry.catalog import Catalog, CatalogBuild, CatalogEntry
from model_registry.records import Alias, Model, ModelVersion, Variant

SHORT_CONTEXT = 4096  # tokens: enough for most chats


class ArtifactDescription(TypedDict):
    """path: in its variant's folder."""

    path: str
    sha256: str
    size_bytes: int


class VariantDescription(TypedDict):
    """One form of a version's weights. folder: on the machine that has the registry. graph: null where nothing serves it."""

    name: str
    precision: str
    provider_family: str
    role: str
    graph: str | None
    folder: str
    size_bytes: int
    artifacts: list[ArtifactDescription]


class VersionDescription(TypedDict):
    """An immutable version of a model. label: `name:number`. digest: the sha256 over its files, which is its identity.

    source: where it came from, `job:ID` when a job made it. parent: the label of what it was made from.
    """

    model: str
    number: int
    label: str
    digest: str
    created_at: str
    size_bytes: int
    source: str
    source_sha256: str | None
    importer: str
    architecture: str
    context_length: int
    capabilities: list[str]
    licence: str
    parent: str | None
    parameters: dict[str, Any]
    metrics: dict[str, float | None]
    library_versions: dict[str, str]
    warnings: list[str]
    variants: list[VariantDescription]


class ModelDescription(TypedDict):
    """A name with its versions. aliases: which number each one means."""

    name: str
    created_at: str
    aliases: dict[str, int]
    versions: list[VersionDescription]


class AliasDescription(TypedDict):
    """A pointer to a version of its model. version: its number. weight: the share of requests, 1 today."""

    model: str
    alias: str
    version: int
    weight: float


class CatalogBuildDescription(TypedDict):
    """memory_bytes: the least that it needs while it serves, at full context; memory_bytes_4k: with context_length = 4096.

    All are estimates before the first pull; null where the memory cannot be predicted.
    """

    name: str
    source: str
    download_bytes: int
    memory_bytes: int | None
    memory_bytes_4k: int | None


class CatalogDescription(TypedDict):
    """A model that can be pulled by its name. memory_bytes: of its first build. installed: whether a model here has this name."""

    name: str
    description: str
    licence: str
    parameters: int
    embedded: bool
    context_length: int | None
    installed: bool
    memory_bytes: int | None
    builds: list[CatalogBuildDescription]


def describe_model(model: Model) -> ModelDescription:
    return {
        "name": model.name,
        "created_at": model.created_at.isoformat(),
        "aliases": {alias.name: alias.number for alias in model.aliases},
        "versions": [describe_version(version) for version in model.versions],
    }


def describe_version(version: ModelVersion) -> VersionDescription:
    manifest = version.manifest
    return {
        "model": version.model,
        "number": version.number,
        "label": version.label,
        "digest": version.digest,
        "created_at": version.created_at.isoformat(),
        "size_bytes": version.size_bytes,
        "source": manifest.source,
        "source_sha256": manifest.source_sha256,
        "importer": manifest.importer,
        "architecture": manifest.architecture,
        "context_length": manifest.context_length,
        "capabilities": sorted(manifest.capabilities),
        "licence": manifest.licence,
        "parent": manifest.parent,
        "parameters": finite(manifest.parameters),
        "metrics": finite(manifest.metrics),
        "library_versions": dict(manifest.library_versions),
        "warnings": list(manifest.warnings),
        "variants": [_describe_variant(variant) for variant in version.variants],
    }


def _describe_variant(variant: Variant) -> VariantDescription:
    return {
        "name": variant.name,
        "precision": variant.precision.value,
        "provider_family": variant.provider_family,
        "role": variant.role.value,
        "graph": None if variant.graph is None else variant.graph.value,
        "folder": str(variant.folder),
        "size_bytes": variant.size_bytes,
        "artifacts": [
            {"path": artifact.path, "sha256": artifact.sha256, "size_bytes": artifact.size_bytes} for artifact in variant.artifacts
        ],
    }


def describe_alias(alias: Alias) -> AliasDescription:
    return {"model": alias.model, "alias": alias.name, "version": alias.number, "weight": alias.weight}


def describe_catalog(catalog: Catalog, models: Iterable[Model]) -> list[CatalogDescription]:
    """One value per entry. models: those that are here."""
    names = {model.name for model in models}
    return [
        {
            "name": entry.name,
            "description": entry.description,
            "licence": entry.licence,
            "parameters": entry.parameters,
            "embedded": entry.embedded,
            "context_length": _context_length(entry),
            "installed": entry.name in names,
            "memory_bytes": entry.builds[0].memory_bytes(),
            "builds": [_describe_build(build) for build in entry.builds],
        }
        for entry in catalog.entries
    ]


def _context_length(entry: CatalogEntry) -> int | None:
    sizes = entry.builds[0].sizes
    return None if sizes is None else sizes.context_length


def _describe_build(build: CatalogBuild) -> CatalogBuildDescription:
    return {
        "name": build.name,
        "source": str(build.source),
        "download_bytes": build.download_bytes,
        "memory_bytes": build.memory_bytes(),
        "memory_bytes_4k": build.memory_bytes(SHORT_CONTEXT),
    }


def finite(value: Any) -> Any:
    """The value as JSON can hold it: a loss that is infinite or no number becomes None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value
