"""Checks a version's files against the registry's digests. Reads files; changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from model_registry.disk import sha256_of
from model_registry.records import Artifact, ModelVersion, Variant


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is not as it should be. label: `name:number`; path: `<variant>/<path>`; message: what, what to do."""

    label: str
    path: str
    message: str


Seen = Callable[[int], None]


def problems_of(version: ModelVersion, *, hashing: bool = True, seen: Seen | None = None) -> tuple[Problem, ...]:
    """Missing, resized, changed and surplus files. Without `hashing`, only names and sizes are compared.

    seen: called with each number of bytes read; what it raises ends the work.
    """
    remedy = f"Run `slmops rm --force {version.label}`, then pull it again."
    return tuple(
        Problem(version.label, f"{variant.name}/{path}", f"{what} {remedy}")
        for variant in version.variants
        for path, what in _variant_problems(variant, hashing, seen)
    )


def _variant_problems(variant: Variant, hashing: bool, seen: Seen | None) -> Iterator[tuple[str, str]]:
    for artifact in variant.artifacts:
        what = _artifact_problem(variant, artifact, hashing, seen)
        if what:
            yield artifact.path, what
    known = {artifact.path for artifact in variant.artifacts}
    for path in sorted(variant.folder.rglob("*")):
        relative = path.relative_to(variant.folder).as_posix()
        if not path.is_dir() and relative not in known:
            yield relative, "The file is not part of this version."


def _artifact_problem(variant: Variant, artifact: Artifact, hashing: bool, seen: Seen | None) -> str | None:
    path = variant.folder / artifact.path
    if not path.is_file():
        return "The file is missing."
    size = path.stat().st_size
    if size != artifact.size_bytes:
        return f"The file has {size} bytes and should have {artifact.size_bytes}."
    if hashing and (found := sha256_of(path, seen)) != artifact.sha256:
        return f"The file's sha256 is {found} and should be {artifact.sha256}."
    return None
