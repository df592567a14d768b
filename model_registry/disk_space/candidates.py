"""What could be removed to make room, and the contract of those who keep files in a home."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from model_registry.disk_space.kinds import StorageKind
from model_registry.disk_space.limits import DiskLimits


class RemovalStage(IntEnum):
    """The order in which things are removed: first what is worth least."""

    STAGING = 1  # folders of work whose process has died
    DOWNLOAD = 2  # partial downloads that no pull is working on
    ORPHAN = 3  # files that nothing refers to
    CACHE = 4  # what can be made again
    UPLOAD = 5  # uploads that have expired, or are old
    JOB = 6  # checkpoints of ended jobs; never their results and logs
    VERSION = 7  # versions beyond `keep_versions`


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that its keeper can remove. name: as `slmops disk` shows it. size_bytes: what comes free.

    last_used_s: seconds since the epoch. why: the reason for a removal, as half a sentence. is_due: it goes whether room is needed
    or not. in_use: why it must stay; None if nothing keeps it.
    """

    kind: StorageKind
    stage: RemovalStage
    name: str
    size_bytes: int
    last_used_s: float
    why: str
    is_due: bool
    in_use: str | None = None


Names = frozenset[str]  # texts that name versions, models or uploads


@dataclass(frozen=True, slots=True)
class Circumstances:
    """needed: what unfinished work refers to, read anew at each call. now_s: seconds since the epoch."""

    limits: DiskLimits
    needed: Callable[[], Names]
    now_s: float


class Keeper(Protocol):
    """Keeps one sort of files in a home. Its methods wait for the disk."""

    def needed(self) -> Names:
        """What its unfinished work refers to in others' keeping."""

    def candidates(self, at: Circumstances) -> Iterable[Candidate]:
        """What could be removed, with what is in use marked so. Changes nothing."""

    def remove(self, candidate: Candidate, at: Circumstances) -> int | None:
        """Removes what `candidates` gave, unless it came into use since; bytes freed.

        None: it is not this keeper's, or is in use by now. Raises RegistryBusy, NotWritable, OutOfDisk.
        """
