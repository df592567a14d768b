"""Bytes on a file system: hashing, linking, syncing, and what a full disk is called. Knows nothing about models."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from model_registry.errors import OutOfDisk

CHUNK_BYTES = 1 << 20
READ_ONLY = 0o444
_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


def sha256_of(path: Path, seen: Callable[[int], None] | None = None) -> str:
    """Hex digest of a file's content; `seen` is told of each number of bytes read."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
            if seen is not None:
                seen(len(block))
    return digest.hexdigest()


def sync_file(path: Path) -> None:
    """The file's content survives a power cut after this."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """The folder's entries survive a power cut after this. Windows has no such call and needs none."""
    if os.name == "posix":
        sync_file(path)


def link_or_copy(source: Path, target: Path) -> None:
    """`target`, which does not exist, gets the content of `source`: a hard link, else a synced copy; no symbolic link.

    ONNX Runtime refuses external data behind symbolic links, and a hard link costs nothing.
    """
    if not source.is_symlink():
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)
    sync_file(target)


def tree_bytes(path: Path) -> int:
    """Total size of the regular files under `path`, or of the file `path`; 0 when it is gone."""
    if path.is_file():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file() and not entry.is_symlink())


def remove_tree(path: Path) -> None:
    """The file or folder is gone after this, read-only files included; it may be gone already."""
    if path.is_file() or path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def require_free(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raises OutOfDisk when fewer than `needed_bytes` are free where `folder` is (it exists)."""
    if shutil.disk_usage(folder).free < needed_bytes:
        raise _out_of_disk(folder, needed_bytes, purpose)


@contextlib.contextmanager
def disk_full_means_out_of_disk(folder: Path, needed_bytes: int, purpose: str) -> Iterator[None]:
    """Turns the system's `no space left`, `quota exceeded` and `file too large` into OutOfDisk; lets the rest pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _out_of_disk(folder, needed_bytes, purpose) from error


def _out_of_disk(folder: Path, needed_bytes: int, purpose: str) -> OutOfDisk:
    free = shutil.disk_usage(folder).free if folder.exists() else 0
    return OutOfDisk(
        f"The disk is full: {purpose} needs {needed_bytes / 1e6:.1f} MB in {folder}, where {free / 1e6:.1f} MB are free. "
        "Free some space (`slmops list` shows the models, `slmops rm MODEL` removes one), or set SLMOPS_HOME to a "
        "larger disk.",
        needed_bytes=needed_bytes,
    )
