"""Which process runs a home's jobs: the one that holds a lock, which the system gives back however that process ends."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout


class Ownership:
    """Nothing is written before `take`."""

    def __init__(self, home: Path) -> None:
        self._path = home / "locks" / "jobs.lock"
        self._lock = FileLock(self._path, thread_local=False)

    @property
    def is_mine(self) -> bool:
        return self._lock.is_locked

    def take(self) -> bool:
        """Whether the jobs are this process's now; at once, whoever has them."""
        if not self.is_mine:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                return False
        return True

    def give_back(self) -> None:
        self._lock.release()
