"""Folders for work in progress, and shared locks on folders that processes use.

A staging folder is on the same file system as the artifacts and lives as long as its lock is held; the system drops the lock of a
process that died, and then anyone may collect the folder. A version's folder is held by each process that has it loaded. Windows
has no such locks: there nothing is known to be held, but open files cannot be deleted either.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from model_registry.disk import PRIVATE_FILE, make_private_folder, remove_tree, storage_errors, tree_bytes

if sys.platform != "win32":
    import fcntl


def hold(folder: Path) -> bool:
    """Makes `is_held(folder)` true for every other process until this process ends. False: the folder is not there (any more)."""
    if sys.platform == "win32" or not folder.is_dir():
        return folder.is_dir()
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for one who is removing it
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return True
        os.close(descriptor)
    return False


def is_held(folder: Path) -> bool:
    """Whether some process holds it; false for a folder that is not there."""
    if sys.platform == "win32" or not folder.is_dir():
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove_unheld(path: Path) -> int | None:
    """The file or folder is gone; bytes freed. None when a process holds it. Who is about to hold it waits, and finds it gone."""
    if sys.platform == "win32" or not path.is_dir():
        return _removed(path)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _removed(path)
    except BlockingIOError:
        return None
    finally:
        os.close(descriptor)


def _removed(path: Path) -> int:
    freed = tree_bytes(path)
    remove_tree(path)
    return freed


LONE_LOCK_AFTER_S = 3600.0


@contextlib.contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """A new empty folder under `parent`; gone with all it holds when the block ends, however it ends."""
    make_private_folder(parent)
    folder = parent / uuid.uuid4().hex
    lock = FileLock(_lock_path(folder), mode=PRIVATE_FILE)
    with storage_errors(parent, 1 << 12, "writing to the registry"):
        lock.acquire()
    try:
        make_private_folder(folder)
        yield folder
    finally:
        remove_tree(folder)
        _lock_path(folder).unlink(missing_ok=True)
        lock.release()


def stale_folders(parent: Path) -> Iterator[tuple[Path, bool]]:
    """The staging folders under `parent`, and whether no live process holds each.

    A folder exists only while its lock is held or its process is dead; but a lock without a folder may be about to be taken, so
    one counts only after an hour.
    """
    deadline = time.time() - LONE_LOCK_AFTER_S
    entries = list(parent.iterdir()) if parent.is_dir() else []
    for folder in sorted({entry.with_name(entry.name.removesuffix(".lock")) for entry in entries}):
        if folder.exists() or modified_at(_lock_path(folder)) <= deadline:
            yield folder, _is_dead(folder)


def collect_stale(parent: Path, name: str | None = None) -> int:
    """Removes folders (and their locks) that no live process holds, however new; only that one, if a name is given. Bytes freed."""
    freed = 0
    for folder, _ in stale_folders(parent):
        if name not in (None, folder.name):
            continue
        with contextlib.suppress(Timeout), FileLock(_lock_path(folder), timeout=0):
            freed += _removed(folder)
            _lock_path(folder).unlink(missing_ok=True)
    return freed


def modified_at(path: Path) -> float:
    """Seconds since the epoch; 0 for what is gone."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _is_dead(folder: Path) -> bool:
    if not _lock_path(folder).exists():
        return True
    try:
        with FileLock(_lock_path(folder), timeout=0):
            return True
    except (Timeout, OSError):
        return False


def _lock_path(folder: Path) -> Path:
    return folder.with_name(folder.name + ".lock")
