"""Registry records and plans of jobs as plain JSON values with stable keys, as `--json` prints them, and as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from model_registry.records import Model, ModelVersion, Variant
from server.cli.terminal import amount, print_json, print_line, print_note, size, span


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


def outline(values: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """One line per value; what is empty is left out; bytes are readable, hashes short."""
    indent = "  " * depth
    for key, value in values.items():
        if value is None or value in ("", [], {}):
            continue
        match value:
            case Mapping():
                yield f"{indent}{key}:"
                yield from outline(value, depth + 1)
            case list():
                yield f"{indent}{key}:"
                yield from _items(value, depth + 1)
            case _:
                yield f"{indent}{key}: {_scalar(key, value)}"


def _items(values: Sequence[Any], depth: int) -> Iterator[str]:
    for value in values:
        if not isinstance(value, Mapping):
            yield "  " * depth + f"- {value}"
            continue
        lines = list(outline(value, depth + 1))
        yield "  " * depth + "- " + lines[0].strip()
        yield from lines[1:]


def _scalar(key: str, value: object) -> str:
    if key.endswith("_bytes") and isinstance(value, int):
        return size(value)
    if key.endswith("sha256") or key == "digest":
        return f"{value}"[:16]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_plan(plan: dict[str, Any], as_json: bool) -> None:
    """plan: as `/admin/job-plans` answers it."""
    if as_json:
        print_json(plan)
        return
    for sentence in plan["summary"]:
        print_line(sentence)
    figures = (
        ("steps", plan["num_steps"], str),
        ("takes about", plan["duration_s"], span),
        ("memory", plan["memory_bytes"], size),
        ("disk", plan["disk_bytes"] or None, size),
        ("downloads", plan["download_bytes"] or None, lambda count: amount(count, None, "bytes")),
    )
    for name, value, shown in figures:
        if value is not None:
            print_line(f"{name}: {shown(value)}")
    for name in plan["outputs"]:
        print_line(f"registers: {name}")
    if plan["stages"]:
        print_line(f"stages: {', '.join(plan['stages'])}")
    for warning in plan["warnings"]:
        print_note(warning)
