"""What the registry keeps in a home, as candidates for removal: staging, downloads, checkpoints, caches, and versions.

What is in use is known by locks: of a staging folder and of a pull while their process lives, on a folder while a process works
with it. Versions and what hangs on them are decided and removed under the registry's own lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from model_registry import queries
from model_registry.artifacts import ArtifactStore
from model_registry.disk import PRIVATE_FILE, entries, remove_tree, tree_bytes
from model_registry.disk_space.candidates import Candidate, Circumstances, Names, RemovalStage
from model_registry.disk_space.kinds import StorageKind
from model_registry.disk_space.versions import is_needed, version_candidates
from model_registry.errors import ModelInUse, ModelNotFound
from model_registry.records import ModelVersion
from model_registry.staging import collect_stale, is_held, modified_at, remove_unheld, stale_folders

if TYPE_CHECKING:
    from model_registry.registry import Registry

CHECKPOINT_NAME_CHARS = 32  # of a version's digest, which names its checkpoint's folder
ABANDONED_DOWNLOAD_AFTER_S = 7 * 24 * 3600.0
_RESUMABLE_S = 3600.0  # a download that young is left for the pull that is tried again, even where room is needed
_ORPHANS = "blobs and folders that no version has"


class RegistryKeeper:
    """Of one registry's home."""

    def __init__(self, registry: Registry, store: ArtifactStore) -> None:
        self._registry = registry
        self._store = store
        self._home = registry.home

    def needed(self) -> Names:
        return frozenset()

    def candidates(self, at: Circumstances) -> Iterable[Candidate]:
        yield from self._staging()
        yield from self._downloads(at)
        yield from self._caches(at)
        if self._registry.database.exists():
            yield from self._orphans(at)
            yield from self._checkpoints(at)
            yield from version_candidates(self._registry.models(), at)

    def remove(self, candidate: Candidate, at: Circumstances) -> int | None:
        match candidate.stage, candidate.kind:
            case RemovalStage.STAGING, _:
                return collect_stale(self._home / "staging", candidate.name.partition("/")[2])
            case RemovalStage.DOWNLOAD, _:
                return self._remove_download(self._home / candidate.name)
            case RemovalStage.CACHE | RemovalStage.ORPHAN, StorageKind.CACHES | StorageKind.CHECKPOINTS:
                return self._remove_cache(self._home / candidate.kind / candidate.name, at)
            case RemovalStage.ORPHAN, StorageKind.VERSIONS:
                return self._remove_orphans()
            case RemovalStage.VERSION, StorageKind.VERSIONS:
                return self._remove_version(candidate.name, at)
        return None

    # ---- candidates ----

    def _staging(self) -> Iterator[Candidate]:
        for folder, is_dead in stale_folders(self._home / "staging"):
            in_use = None if is_dead else "its process is at work"
            yield _candidate(StorageKind.DOWNLOADS, RemovalStage.STAGING, folder, "its process has died", True, in_use, "staging/")

    def _downloads(self, at: Circumstances) -> Iterator[Candidate]:
        for folder in entries(self._home / "downloads"):
            age_s = at.now_s - modified_at(folder)
            in_use = "a pull is at work" if self._is_pulled(folder) else None
            if in_use is None and age_s < _RESUMABLE_S:
                in_use = "its pull ended within the last hour and can be resumed"
            is_due = age_s > ABANDONED_DOWNLOAD_AFTER_S
            why = "nobody has resumed it for a week" if is_due else "it can be fetched again"
            yield _candidate(StorageKind.DOWNLOADS, RemovalStage.DOWNLOAD, folder, why, is_due, in_use, "downloads/")

    def _caches(self, at: Circumstances) -> Iterator[Candidate]:
        for path in entries(self._home / "caches"):
            in_use = "a process works with it" if is_held(path) else None
            yield _candidate(StorageKind.CACHES, RemovalStage.CACHE, path, "it can be computed again", False, in_use)

    def _checkpoints(self, at: Circumstances) -> Iterator[Candidate]:
        versions = self._versions_of_checkpoints()
        needed = at.needed()
        for path in entries(self._home / "checkpoints"):
            version = versions.get(path.name)
            in_use = _why_kept(path, version, needed, offline=at.limits.offline)
            if version is None:
                yield _candidate(StorageKind.CHECKPOINTS, RemovalStage.ORPHAN, path, "its version is gone", True, in_use)
            else:
                why = f"it can be made again from the source of {version.label}"
                yield _candidate(StorageKind.CHECKPOINTS, RemovalStage.CACHE, path, why, False, in_use)

    def _orphans(self, at: Circumstances) -> Iterator[Candidate]:
        with self._registry.database.reading() as reader:
            referenced = queries.referenced_blobs(reader)
        size = self._store.orphan_bytes(self._numbers(), referenced)
        if size is not None:
            why = "no version has them"
            yield Candidate(StorageKind.VERSIONS, RemovalStage.ORPHAN, _ORPHANS, size, at.now_s, why, is_due=True)

    # ---- removals ----

    def _remove_download(self, folder: Path) -> int | None:
        lock = FileLock(self._pull_lock(folder), mode=PRIVATE_FILE)
        with contextlib.suppress(Timeout), lock.acquire(timeout=0):
            freed = tree_bytes(folder)
            remove_tree(folder)
            return freed
        return None

    def _remove_cache(self, path: Path, at: Circumstances) -> int | None:
        with self._registry.database.exclusive():
            version = self._versions_of_checkpoints().get(path.name)
            if _why_kept(path, version, at.needed(), offline=at.limits.offline) is not None:
                return None
            return remove_unheld(path)

    def _remove_orphans(self) -> int:
        with self._registry.database.exclusive():
            with self._registry.database.reading() as reader:
                referenced = queries.referenced_blobs(reader)
            return self._store.collect(self._numbers(), referenced)

    def _remove_version(self, label: str, at: Circumstances) -> int | None:
        """Decided anew under the lock: an alias, an adapter or a job may have come to it."""

        def is_removable() -> bool:
            found = {each.name: each for each in version_candidates(self._registry.models(), at)}.get(label)
            return found is not None and found.in_use is None

        with contextlib.suppress(ModelInUse, ModelNotFound):
            return self._registry.remove(label, only_if=is_removable)
        return None

    # ---- inside ----

    def _numbers(self) -> dict[str, list[int]]:
        return {model.name: [version.number for version in model.versions] for model in self._registry.models()}

    def _versions_of_checkpoints(self) -> dict[str, ModelVersion]:
        """By the name of the folder that their checkpoint has, or would have."""
        versions = (version for model in self._registry.models() for version in model.versions)
        return {version.digest[:CHECKPOINT_NAME_CHARS]: version for version in versions}

    def _is_pulled(self, folder: Path) -> bool:
        path = self._pull_lock(folder)
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0, mode=PRIVATE_FILE):
                return False
        except (Timeout, OSError):
            return True

    def _pull_lock(self, folder: Path) -> Path:
        """Of the pulls that fetch into this folder; what stands after a dash says which files of a repository they take."""
        return self._home / "locks" / f"pull-{folder.name.partition('-')[0]}.lock"


def _why_kept(path: Path, version: ModelVersion | None, needed: Names, *, offline: bool) -> str | None:
    """Why a cache or a checkpoint must stay."""
    if is_held(path):
        return "a process works with it"
    if version is None:
        return None
    if offline:
        return "it could not be made again offline"
    return "an unfinished job names its version" if is_needed(version, needed) else None


def _candidate(
    kind: StorageKind, stage: RemovalStage, path: Path, why: str, is_due: bool, in_use: str | None, prefix: str = ""
) -> Candidate:
    return Candidate(kind, stage, f"{prefix}{path.name}", tree_bytes(path), modified_at(path), why, is_due, in_use)
