"""Whether the daemon at an address of this machine is the one that serves a home, when it does not say so itself."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import psutil
from filelock import FileLock, Timeout

from model_registry.disk import DAEMON_LOCK

_PORTS = {"http": 80, "https": 443}


def is_served(home: Path, url: str) -> bool:
    """By the lock that a daemon with jobs holds, or by the database that the process behind the address has open."""
    from model_registry.database import DATABASE_NAME

    return _is_locked(home / DAEMON_LOCK) or _has_open(home / DATABASE_NAME, url)


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with FileLock(path, blocking=False):
            return False
    except (Timeout, OSError):  # OSError: it belongs to another user's daemon
        return True


def _has_open(database: Path, url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or _PORTS[parts.scheme]
    try:
        listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
        pids = {each.pid for each in listening if each.laddr.port == port and each.pid is not None}
        files = [file.path for pid in pids for file in psutil.Process(pid).open_files()]
    except (psutil.Error, OSError):
        return False  # another user's process, whose files are not shown
    return str(database.resolve()) in files
