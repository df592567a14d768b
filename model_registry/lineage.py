"""The family tree of a version: what it was made from, and what was made from it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from model_registry.records import Model, ModelVersion


@dataclass(frozen=True, slots=True)
class Lineage:
    """A version and all that descends from it; children by label."""

    version: ModelVersion
    children: tuple[Lineage, ...] = ()


def lineage_of(models: Iterable[Model], version: ModelVersion) -> Lineage:
    """The whole tree of this version, from its first ancestor that is still registered."""
    by_label = {each.label: each for model in models for each in model.versions}
    root, seen = version, {version.label}
    while (parent := by_label.get(root.manifest.parent or "")) is not None and parent.label not in seen:
        root = parent
        seen.add(parent.label)
    children: dict[str, list[ModelVersion]] = {}
    for each in by_label.values():
        if each.manifest.parent is not None:
            children.setdefault(each.manifest.parent, []).append(each)
    return _tree(root, children, frozenset())


def _tree(version: ModelVersion, children: dict[str, list[ModelVersion]], above: frozenset[str]) -> Lineage:
    above = above | {version.label}
    below = sorted(children.get(version.label, ()), key=lambda each: (each.model, each.number))
    return Lineage(version, tuple(_tree(each, children, above) for each in below if each.label not in above))
