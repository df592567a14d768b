"""Uploaded files as candidates for removal: those that have expired, and those that are old where the limits say so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from model_registry.disk import entries, remove_tree, tree_bytes
from model_registry.disk_space.candidates import Candidate, Circumstances, Names, RemovalStage
from model_registry.disk_space.kinds import StorageKind
from model_registry.staging import modified_at
from model_registry.uploads import FileStore

_LEFT_AFTER_S = 24 * 3600.0  # a folder without a row that is so old was left by an upload that was cut off


class UploadKeeper:
    """home: where the files of `files` are."""

    def __init__(self, home: Path, files: FileStore) -> None:
        self._files = files
        self._folder = home / "files"

    def needed(self) -> Names:
        return frozenset()

    def candidates(self, at: Circumstances) -> Iterable[Candidate]:
        needed, most_s = at.needed(), at.limits.keep_uploads_s
        stored = self._files.everything()
        for each in stored:
            created_s = each.created_at.timestamp()
            why = None
            if each.expires_at is not None and each.expires_at.timestamp() <= at.now_s:
                why = "it has expired"
            elif most_s is not None and created_s < at.now_s - most_s:
                why = "it is older than disk.keep_uploads_days"
            if why is not None:
                in_use = "an unfinished job reads it" if each.id in needed else None
                yield Candidate(
                    StorageKind.UPLOADS, RemovalStage.UPLOAD, each.id, each.size_bytes, created_s, why, is_due=True, in_use=in_use
                )
        yield from self._left_behind({each.id for each in stored}, at)

    def remove(self, candidate: Candidate, at: Circumstances) -> int | None:
        if candidate.kind is not StorageKind.UPLOADS or candidate.name in at.needed():
            return None
        if candidate.stage is RemovalStage.ORPHAN:
            remove_tree(self._folder / candidate.name)
        else:
            self._files.forget([candidate.name])
        return candidate.size_bytes

    def _left_behind(self, known: set[str], at: Circumstances) -> Iterator[Candidate]:
        for path in entries(self._folder):
            if path.name not in known and (changed_s := modified_at(path)) < at.now_s - _LEFT_AFTER_S:
                why = "its upload was cut off"
                yield Candidate(StorageKind.UPLOADS, RemovalStage.ORPHAN, path.name, tree_bytes(path), changed_s, why, is_due=True)
