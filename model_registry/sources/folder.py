"""Models on this machine: a folder, a file, or an archive of either. Reads them where they are; knows no network."""

from __future__ import annotations

from pathlib import Path

from model_registry.archives import extract_all, is_archive
from model_registry.disk import sha256_of, tree_bytes
from model_registry.errors import ChecksumMismatch, SourceUnavailable
from model_registry.paths import check_source
from model_registry.progress import Progress
from model_registry.references import PathReference
from model_registry.sources.protocol import Fetched, FetchSize

_ADDED_BY_MACOS = frozenset({"__MACOSX", ".DS_Store"})


class FolderSource:
    def __init__(self, reference: PathReference) -> None:
        self._reference = reference

    def pin(self) -> str | None:
        """A single file is pinned by its content; a folder only by importing it."""
        path = self._existing()
        return f"{path.as_uri()}#sha256={sha256_of(path)}" if path.is_file() else None

    def size(self) -> FetchSize | None:
        """Files are read where they are; an archive hardly compresses weights."""
        path = self._existing()
        num_bytes = tree_bytes(path)
        return FetchSize(0, num_bytes if path.is_file() and is_archive(path) else 0, num_bytes)

    def fetch(self, downloads: Path, scratch: Path, progress: Progress) -> Fetched:
        path = self._existing()
        if path.is_dir():
            return Fetched(path, is_ours=False)
        sha256 = self._checked_sha256(path)
        if not is_archive(path):
            return Fetched(path, is_ours=False, source_sha256=sha256)
        unpacked = scratch / "unpacked"
        unpacked.mkdir()
        extract_all(path, unpacked, progress)
        return Fetched(_innermost(unpacked), is_ours=True, source_sha256=sha256)

    def _existing(self) -> Path:
        path = self._reference.path
        if not path.exists():
            raise SourceUnavailable(f"{path} does not exist. Give the path of a model's folder, a .gguf file or an archive.")
        check_source(path)
        return path

    def _checked_sha256(self, path: Path) -> str:
        sha256, wanted = sha256_of(path), self._reference.sha256
        if wanted is not None and sha256 != wanted:
            raise ChecksumMismatch(f"{path} has the sha256 {sha256} and should have {wanted}: it is another file.")
        return sha256


def _innermost(folder: Path) -> Path:
    """Steps into folders that hold nothing but one entry: archives often wrap their content in one.

    What macOS adds of its own to archives does not count.
    """
    entries = [entry for entry in folder.iterdir() if entry.name not in _ADDED_BY_MACOS]
    if len(entries) == 1:
        return _innermost(entries[0]) if entries[0].is_dir() else entries[0]
    return folder
