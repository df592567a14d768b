"""Room that work in progress is going to need, known to every process of a home.

A reservation is a small file beside a lock that its process holds; the system drops the lock of a process that died, and then the
reservation counts no more. What the work has written already counts as used, and no longer as reserved.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from model_registry.disk import PRIVATE_FILE, entries, make_private_folder, open_private, storage_errors, tree_bytes
from model_registry.disk_space.kinds import StorageKind
from model_registry.disk_space.limits import Needs
from model_registry.errors import RegistryBusy

DECIDING_S = 30.0  # how long others are waited for that make room
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that are going to be written; below 0 where they become another kind.

    folder: where, relative to the home; None where that is not known.
    """

    kind: StorageKind
    num_bytes: int
    folder: str | None = None


def total_of(needs: Sequence[Need]) -> Needs:
    """By kind."""
    found = dict.fromkeys(StorageKind, 0)
    for need in needs:
        found[need.kind] += need.num_bytes
    return found


class Reservations:
    """Of one home."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._folder = home / "locks" / "space"

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Nobody else, in any process, decides meanwhile whether something fits. Raises RegistryBusy, OutOfDisk, NotWritable."""
        lock = FileLock(make_private_folder(self._folder) / "deciding.lock", timeout=DECIDING_S, mode=PRIVATE_FILE)
        try:
            with storage_errors(self._folder, 1 << 12, "reserving room"):
                lock.acquire()
        except Timeout as error:
            raise RegistryBusy(f"Another slmops process is making room in {self._home}. Try again when it is done.") from error
        try:
            yield
        finally:
            lock.release()

    def remaining(self) -> Needs:
        """What all live reservations are still going to need, by kind."""
        found = dict.fromkeys(StorageKind, 0)
        for path in entries(self._folder):
            if path.suffix == _SUFFIX:
                for need in self._read(path):
                    written = tree_bytes(self._home / need.folder) if need.folder else 0
                    found[need.kind] += max(0, need.num_bytes - written)
        return found

    def add(self, needs: Sequence[Need]) -> Reservation:
        """Holds until it is released. Within `deciding`."""
        path = make_private_folder(self._folder) / f"{uuid.uuid4().hex}{_SUFFIX}"
        lock = FileLock(path.with_suffix(".lock"), mode=PRIVATE_FILE)
        with storage_errors(self._folder, 1 << 12, "reserving room"):
            lock.acquire()
            with open_private(path, "xb") as file:
                file.write(msgspec.json.encode(needs))
        return Reservation(path, lock)

    def _read(self, path: Path) -> Sequence[Need]:
        """Nothing, and the file is removed, when the process that made it is gone."""
        with contextlib.suppress(Timeout, FileNotFoundError):
            with FileLock(path.with_suffix(".lock"), timeout=0, mode=PRIVATE_FILE):
                path.unlink(missing_ok=True)
                path.with_suffix(".lock").unlink(missing_ok=True)
            return ()
        try:
            return msgspec.json.decode(path.read_bytes(), type=list[Need])
        except (FileNotFoundError, msgspec.DecodeError):
            return ()


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room that is reserved until `release`."""

    path: Path
    lock: FileLock

    def release(self) -> None:
        for path in (self.path, self.path.with_suffix(".lock")):
            path.unlink(missing_ok=True)
        self.lock.release()
