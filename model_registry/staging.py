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


def hold(folder: Path) -> None:
    """Makes `is_held(folder)` true for every other process until this process ends. Does nothing if there is no such folder."""
    if sys.platform != "win32" and folder.is_dir():
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)


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
