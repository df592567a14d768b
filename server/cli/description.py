"""Registry records as plain JSON values with stable keys: what `--json` prints. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from model_registry.records import Model, ModelVersion, Variant


def describe_model(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "created_at": model.created_at.isoformat(),
        "aliases": {alias.name: alias.number for alias in model.aliases},
        "versions": [describe_version(version) for version in model.versions],
    }


def describe_version(version: ModelVersion) -> dict[str, Any]:
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
        "parameters": dict(manifest.parameters),
        "metrics": dict(manifest.metrics),
        "library_versions": dict(manifest.library_versions),
        "warnings": list(manifest.warnings),
        "variants": [_describe_variant(variant) for variant in version.variants],
    }


def _describe_variant(variant: Variant) -> dict[str, Any]:
    return {
        "name": variant.name,
        "precision": variant.precision.value,
        "provider_family": variant.provider_family,
        "role": variant.role.value,
        "graph": None if variant.graph is None else variant.graph.value,
        "folder": str(variant.folder),
        "size_bytes": variant.size_bytes,
        "artifacts": [asdict(artifact) for artifact in variant.artifacts],
    }
