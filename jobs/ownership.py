"""Which process runs a home's jobs: the one that holds a lock, which the system gives back however that process ends."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from model_registry.disk import PRIVATE_FILE, make_private_folder, storage_errors


class Ownership:
    """Nothing is written before `take`."""

    def __init__(self, home: Path) -> None:
        self._path = home / "locks" / "jobs.lock"
        self._lock = FileLock(self._path, thread_local=False, mode=PRIVATE_FILE)

    @property
    def is_mine(self) -> bool:
        return self._lock.is_locked

    def take(self) -> bool:
        """Whether the jobs are this process's now; at once, whoever has them. Raises OutOfDisk, NotWritable."""
        if not self.is_mine:
            make_private_folder(self._path.parent)
            try:
                with storage_errors(self._path.parent, 1 << 12, "running jobs"):
                    self._lock.acquire(timeout=0)
            except Timeout:
                return False
        return True

    def give_back(self) -> None:
        self._lock.release()
