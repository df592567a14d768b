"""A file that only takes room: freed where the disk is full, so that something can be deleted.

A deletion needs a little room itself: the database writes what it changes beside itself before it commits.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from model_registry.disk import PRIVATE_FILE

SPARE_BYTES = 4 << 20
_PLENTY = 16  # times its size: with less free than this, it is not made
_LITTLE_BYTES = 1 << 20  # free: with less, a transaction may fail


def keep_spare(home: Path) -> None:
    """The file is there after this, where the home is and has room for it."""
    path = _path(home)
    with contextlib.suppress(OSError):
        if path.parent.is_dir() and not path.exists() and shutil.disk_usage(home).free >= _PLENTY * SPARE_BYTES:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE_FILE)
            try:
                _allocate(descriptor)
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def room_to_delete(home: Path) -> Iterator[None]:
    """In the block, a small transaction has the room that it needs, also on a full disk."""
    is_freed = False
    with contextlib.suppress(OSError):
        if shutil.disk_usage(home).free < _LITTLE_BYTES:
            _path(home).unlink()
            is_freed = True
    try:
        yield
    finally:
        if is_freed:
            keep_spare(home)


def _allocate(descriptor: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, SPARE_BYTES)
    else:
        os.write(descriptor, bytes(SPARE_BYTES))


def _path(home: Path) -> Path:
    return home / "locks" / "spare"
