"""Versions beyond the number that is kept of each model, and what keeps one all the same. Pure, but for the locks of folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from model_registry.disk_space.candidates import Candidate, Circumstances, Names, RemovalStage
from model_registry.disk_space.kinds import StorageKind
from model_registry.names import parse_label
from model_registry.records import Model, ModelVersion
from model_registry.staging import is_held


def version_candidates(models: Sequence[Model], at: Circumstances) -> Iterator[Candidate]:
    """Of each model all but its newest `keep_versions` versions; none where that is not set."""
    number = at.limits.keep_versions
    if number is None:
        return
    needed, bases = at.needed(), _bases(models)
    holders = _holders(models)
    for model in models:
        for version in model.versions[: max(0, len(model.versions) - number)]:
            why = f"{model.name} keeps its {number} newest versions (disk.keep_versions)"
            yield Candidate(
                StorageKind.VERSIONS,
                RemovalStage.VERSION,
                version.label,
                sum(size for digest, size in _blobs(version).items() if holders[digest] == 1),
                version.created_at.timestamp(),
                why,
                is_due=True,
                in_use=_why_kept(model, version, needed, bases),
            )


def is_needed(version: ModelVersion, needed: Names) -> bool:
    """Whether unfinished work may mean it: by its label, by an alias, or by the model's name."""
    return any(_may_mean(name, version) for name in needed)


def _may_mean(name: str, version: ModelVersion) -> bool:
    label = parse_label(name)
    return label.name == version.model and label.number in (None, version.number)


def _why_kept(model: Model, version: ModelVersion, needed: Names, bases: frozenset[str]) -> str | None:
    aliases = [alias.name for alias in model.aliases if alias.number == version.number]
    if aliases:
        return f"the alias {', '.join(aliases)} points to it"
    if len(model.versions) == 1:
        return "it is the only version of its model"
    if version.label in bases:
        return "an adapter belongs to it"
    if is_needed(version, needed):
        return "an unfinished job names it"
    return "a process works with it" if any(is_held(variant.folder) for variant in version.variants) else None


def _bases(models: Sequence[Model]) -> frozenset[str]:
    """Labels of versions that adapters were tuned on, and of those whose adapters are attached."""
    versions = [version for model in models for version in model.versions]
    parents = {version.manifest.parent for version in versions if any(each.role == "adapter" for each in version.variants)}
    attached = {each.version for model in models for each in model.adapters}
    return frozenset(label for label in parents | attached if label is not None)


def _blobs(version: ModelVersion) -> dict[str, int]:
    """Sizes by digest."""
    return {artifact.sha256: artifact.size_bytes for variant in version.variants for artifact in variant.artifacts}


def _holders(models: Sequence[Model]) -> Counter[str]:
    """How many versions have each blob."""
    return Counter(digest for model in models for version in model.versions for digest in _blobs(version))
