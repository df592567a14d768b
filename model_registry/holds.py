"""Who uses a version's files right now: a shared lock on its folder, held by each process that has it loaded.

The system gives the lock back when its process ends, however it ends. Knows folders only. Windows has no such locks: there nothing
is known to be held, but open files cannot be deleted either.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl


def hold(folder: Path) -> None:
    """Until this process ends, `is_held(folder)` is true for every other process. Nothing for a folder that is not there."""
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
