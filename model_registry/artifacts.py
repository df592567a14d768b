"""The content-addressed files: blobs named by their sha256, and version folders made of hard links to them.

    <home>/blobs/sha256/<first two digits>/<digest>
    <home>/models/<name>/<number>/<variant>/<path>

Knows nothing about the database: callers pass in what is referenced. Every change is made beside and renamed into place, so
a crash leaves a whole old state or a whole new one, and at worst unreferenced files, which `collect` removes.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_registry.disk import (
    READ_ONLY,
    entries,
    link_or_copy,
    make_private_folder,
    remove_tree,
    sha256_of,
    storage_errors,
    sync_file,
    sync_folder,
    tree_bytes,
)
from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.paths import safe_name
from model_registry.records import ANY_PROVIDER, Artifact, GraphKind, Precision, Variant, VariantRole


@dataclass(frozen=True, slots=True)
class StagedVariant:
    """A finished folder that is to become a variant. Its files become read-only and shared: write them no more.

    The fields are those of `Variant`.
    """

    precision: Precision
    provider_family: str
    folder: Path
    role: VariantRole = VariantRole.SERVE
    graph: GraphKind | None = GraphKind.GQA

    @classmethod
    def checkpoint(cls, folder: Path) -> StagedVariant:
        """Weights in float32 to train or quantize further."""
        return cls(Precision.FP32, ANY_PROVIDER, folder, VariantRole.CHECKPOINT, None)

    @classmethod
    def adapter(cls, folder: Path) -> StagedVariant:
        return cls(Precision.FP32, ANY_PROVIDER, folder, VariantRole.ADAPTER, None)

    @classmethod
    def again(cls, variant: Variant) -> StagedVariant:
        """A published variant as one of another version."""
        return cls(variant.precision, variant.provider_family, variant.folder, variant.role, variant.graph)

    @property
    def name(self) -> str:
        """Part of the version's digest: what is published under a name of an earlier release must have that name."""
        built_for = self.provider_family if self.role is VariantRole.SERVE else self.role
        return f"{built_for}-{self.precision}"


@dataclass(frozen=True, slots=True)
class DescribedVariant:
    """A staged variant and the artifacts found in it."""

    staged: StagedVariant
    artifacts: tuple[Artifact, ...]


def describe(staged: StagedVariant, seen: Callable[[int], None] | None = None) -> DescribedVariant:
    """Hashes every file and makes it durable. Raises CorruptModel for an empty folder, a link, a special file, an unsafe name."""
    safe_name(staged.name, "The build")  # it becomes a folder's name
    artifacts = []
    for path in sorted(staged.folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise CorruptModel(f"{path} is a link or a special file; a model's folder holds plain files only.")
        if path.is_file():
            sync_file(path)
            relative = path.relative_to(staged.folder).as_posix()
            artifacts.append(Artifact(relative, sha256_of(path, seen), path.stat().st_size))
    if not artifacts:
        raise CorruptModel(f"{staged.folder} holds no files, so there is nothing to publish.")
    return DescribedVariant(staged, tuple(artifacts))


def check_names(variants: Sequence[StagedVariant]) -> None:
    """Raises UnsupportedModel when two variants of a version have the same name, and so the same folder."""
    names = [variant.name for variant in variants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UnsupportedModel(f"A version has one variant of each name, and {twice[0]} is there twice. Leave one of them out.")


def digest_of(variants: Sequence[DescribedVariant]) -> str:
    """sha256 over the sorted artifacts of all variants: the identity of a version's content."""
    lines = sorted(
        f"{variant.staged.name}/{artifact.path}\0{artifact.sha256}\n" for variant in variants for artifact in variant.artifacts
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class ArtifactStore:
    """The folders `blobs` and `models` of one home. Callers hold the registry's write lock around every change."""

    def __init__(self, home: Path) -> None:
        self._blobs = home / "blobs" / "sha256"
        self._models = home / "models"

    def blob(self, sha256: str) -> Path:
        return self._blobs / sha256[:2] / sha256

    def version_folder(self, model: str, number: int) -> Path:
        return self._models / model / str(number)

    def place(self, model: str, number: int, variants: Sequence[DescribedVariant]) -> None:
        """The version's folder exists after this, whole. Raises OutOfDisk, NotWritable, and then nothing of it stays."""
        final = self.version_folder(model, number)
        beside = final.with_name(f".{number}-{uuid.uuid4().hex[:8]}")
        needed = sum(artifact.size_bytes for variant in variants for artifact in variant.artifacts)
        for folder in (self._models, self._blobs):
            make_private_folder(folder)
        try:
            with storage_errors(self._models, needed, f"publishing {model}:{number}"):
                for variant in variants:
                    self._place_variant(variant, beside / variant.staged.name)
                remove_tree(final)  # what a crash left of this number before the database knew it
                beside.rename(final)
                sync_folder(final.parent)
        except BaseException:
            remove_tree(beside)
            raise

    def discard(self, model: str, number: int, unreferenced: Collection[str]) -> int:
        """Removes the version's folder and the given blobs; bytes freed."""
        remove_tree(self.version_folder(model, number))
        self._drop_if_empty(self._models / model)
        return sum(self._drop_blob(self.blob(digest)) for digest in unreferenced)

    def orphan_bytes(self, versions: Mapping[str, Collection[int]], referenced: Collection[str]) -> int | None:
        """What `collect` would free; None when it would remove nothing."""
        blobs = self._unknown_blobs(referenced)
        return sum(map(tree_bytes, blobs)) if blobs or self._unknown_folders(versions) else None

    def collect(self, versions: Mapping[str, Collection[int]], referenced: Collection[str]) -> int:
        """Removes every version folder and blob that is not named; bytes freed. Files in other places are left alone."""
        for folder in self._unknown_folders(versions):
            remove_tree(folder)
        for model in entries(self._models):
            self._drop_if_empty(model)
        return sum(map(self._drop_blob, self._unknown_blobs(referenced)))

    def _unknown_folders(self, versions: Mapping[str, Collection[int]]) -> list[Path]:
        folders = [path for model in entries(self._models) for path in entries(model) if path.is_dir()]
        return [path for path in folders if path.name not in {str(number) for number in versions.get(path.parent.name, ())}]

    def _unknown_blobs(self, referenced: Collection[str]) -> list[Path]:
        return [blob for shelf in entries(self._blobs) for blob in entries(shelf) if blob.name not in referenced]

    def _place_variant(self, variant: DescribedVariant, folder: Path) -> None:
        for artifact in variant.artifacts:
            self._adopt(variant.staged.folder / artifact.path, artifact)
            target = folder / artifact.path
            target.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(self.blob(artifact.sha256), target)
            target.chmod(READ_ONLY)
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                sync_folder(path)

    def _adopt(self, source: Path, artifact: Artifact) -> None:
        """The blob of `artifact` exists and is sound after this; a blob that rotted is replaced."""
        blob = self.blob(artifact.sha256)
        if blob.exists() and (blob.samefile(source) or sha256_of(blob) == artifact.sha256):
            return
        blob.parent.mkdir(parents=True, exist_ok=True)
        beside = blob.with_name(f".{uuid.uuid4().hex}")
        try:
            link_or_copy(source, beside)
            beside.chmod(READ_ONLY)
            beside.replace(blob)
        except BaseException:
            remove_tree(beside)
            raise
        sync_folder(blob.parent)

    def _drop_blob(self, blob: Path) -> int:
        freed = tree_bytes(blob) if blob.exists() else 0
        blob.unlink(missing_ok=True)
        self._drop_if_empty(blob.parent)
        return freed

    @staticmethod
    def _drop_if_empty(folder: Path) -> None:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
