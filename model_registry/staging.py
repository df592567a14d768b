"""Folders for work in progress, on the same file system as the artifacts. Knows nothing about what is written in them.

A staging folder lives as long as its lock is held; the system drops the lock of a process that died, and then the
folder is garbage that anyone may collect.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from model_registry.disk import remove_tree, tree_bytes

LONE_LOCK_AFTER_S = 3600.0


@contextlib.contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """A new empty folder under `parent`; gone with all it holds when the block ends, however it ends."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / uuid.uuid4().hex
    lock = FileLock(_lock_path(folder))
    with lock:
        try:
            folder.mkdir()
            yield folder
        finally:
            remove_tree(folder)
            _lock_path(folder).unlink(missing_ok=True)


def collect_stale(parent: Path) -> int:
    """Removes folders (and their locks) that no live process holds, however new. Bytes freed.

    A folder exists only while its lock is held or its process is dead; but a lock without a folder may be about to be taken, so
    one is left for an hour.
    """
    if not parent.is_dir():
        return 0
    freed = 0
    deadline = time.time() - LONE_LOCK_AFTER_S
    for folder in {entry.with_name(entry.name.removesuffix(".lock")) for entry in parent.iterdir()}:
        if not folder.exists() and _modified(_lock_path(folder)) > deadline:
            continue
        with contextlib.suppress(Timeout), FileLock(_lock_path(folder), timeout=0):
            freed += tree_bytes(folder)
            remove_tree(folder)
            _lock_path(folder).unlink(missing_ok=True)
    return freed


def _modified(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _lock_path(folder: Path) -> Path:
    return folder.with_name(folder.name + ".lock")
