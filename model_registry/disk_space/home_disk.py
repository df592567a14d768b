"""The disk of one home: what lies there, whether more fits, and the collection that makes room. Waits for the disk.

Quotas are checked before work begins, with what other work has reserved; what was planned is not refused at its end.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from model_registry.disk_space.candidates import Candidate, Circumstances, Keeper, Names
from model_registry.disk_space.kinds import StorageKind
from model_registry.disk_space.limits import DiskLimits, DiskWarning, Needs, Shortfall, arithmetic, megabytes, shortfall, warnings
from model_registry.disk_space.planning import plan_collection
from model_registry.disk_space.reservations import Need, Reservation, Reservations, total_of
from model_registry.disk_space.spare import room_to_delete
from model_registry.disk_space.usage import HomeUsage, measure, measure_disk
from model_registry.errors import NotWritable, OutOfDisk, RegistryBusy

_NOTHING: Needs = {}
_log = logging.getLogger("slmops.disk")


@dataclass(frozen=True, slots=True)
class DiskReport:
    """reserved: for work in progress. candidates: what could be removed, the first to go first, with what is in use among them.

    planned: those that a collection would remove now. warnings: what is nearly full.
    """

    home: Path
    limits: DiskLimits
    usage: HomeUsage
    reserved: Needs
    candidates: tuple[Candidate, ...]
    planned: tuple[Candidate, ...]
    warnings: tuple[DiskWarning, ...]

    def reclaimable(self, kind: StorageKind) -> int:
        """What comes free where everything of that kind is removed that nothing keeps."""
        return sum(each.size_bytes for each in self.candidates if each.kind is kind and each.in_use is None)


@dataclass(frozen=True, slots=True)
class Collected:
    """removed: what is gone, in its order."""

    removed: tuple[Candidate, ...]
    freed_bytes: int


class HomeDisk:
    """keepers: everybody who keeps files in the home. owners_of: the labels of the versions that have each blob.

    Thread safe. A process in which a reservation holds is not refused again for what it reserved.
    """

    def __init__(
        self, home: Path, limits: DiskLimits, keepers: Sequence[Keeper], owners_of: Callable[[], Mapping[str, Collection[str]]]
    ) -> None:
        self.limits = limits
        self.home = home
        self.keepers = tuple(keepers)
        self._owners_of = owners_of
        self._reservations = Reservations(home)
        self._this_thread = threading.local()
        self._counting = threading.Lock()
        self._collected = dict.fromkeys(StorageKind, 0)

    # ---- reads ----

    def usage(self) -> HomeUsage:
        owners = self._owners_of()
        return measure(self.home, lambda digest: owners.get(digest, ()))

    def report(self) -> DiskReport:
        usage, reserved = self.usage(), self._reservations.remaining()
        candidates = tuple(sorted(self._candidates(), key=lambda each: (each.stage, each.last_used_s, each.name)))
        planned = plan_collection(candidates, shortfall(self.limits, usage, reserved, _NOTHING))
        return DiskReport(self.home, self.limits, usage, reserved, candidates, planned, tuple(warnings(self.limits, usage)))

    def warnings(self) -> Iterator[DiskWarning]:
        """What is nearly full."""
        return warnings(self.limits, self._usage_in_limits())

    def collected_bytes(self) -> Mapping[StorageKind, int]:
        """What this process has removed since it began, by kind."""
        with self._counting:
            return dict(self._collected)

    # ---- room ----

    def require(self, needs: Sequence[Need], purpose: str) -> None:
        """Collects what is in the way. Raises OutOfDisk with the arithmetic when it does not fit; see `reserving`."""
        if self.limits.are_set and not self._is_reserved:
            with self._reservations.deciding():
                self._check(needs, purpose)

    @contextlib.contextmanager
    def reserving(self, needs: Sequence[Need], purpose: str) -> Iterator[None]:
        """The room is there, for this thread's work in the block. purpose: what is written, e.g. "pulling tiny".

        What is reserved within another reservation of the thread belongs to that. Raises OutOfDisk before the block begins.
        """
        if not self.limits.are_set or self._is_reserved:
            yield
            return
        reservation = self._reserved(needs, purpose)
        self._this_thread.is_reserved = True
        try:
            yield
        finally:
            self._this_thread.is_reserved = False
            reservation.release()

    # ---- collection ----

    def collect(self, missing: Shortfall | None = None) -> Collected:
        """Removes what is due, and what else makes room that is missing; what is in use stays.

        missing: beyond what the limits say already. What cannot be removed now is logged, and left for the next time.
        """
        if missing is None:
            missing = shortfall(self.limits, self.usage(), self._reservations.remaining(), _NOTHING)
        at = self._circumstances()
        removed, freed = [], 0
        planned = plan_collection(self._candidates(), missing)
        with room_to_delete(self.home) if planned else nullcontext():
            for candidate in planned:
                num_bytes = self._remove(candidate, at)
                if num_bytes is not None:
                    removed.append(candidate)
                    freed += num_bytes
        return Collected(tuple(removed), freed)

    # ---- inside ----

    @property
    def _is_reserved(self) -> bool:
        return bool(getattr(self._this_thread, "is_reserved", False))

    def _usage_in_limits(self) -> HomeUsage:
        """As much of it as the limits are about: without quotas, no folder is read."""
        return self.usage() if self.limits.have_quotas else measure_disk(self.home)

    def _reserved(self, needs: Sequence[Need], purpose: str) -> Reservation:
        with self._reservations.deciding():
            self._check(needs, purpose)
            return self._reservations.add(needs)

    def _check(self, needs: Sequence[Need], purpose: str) -> None:
        needed, reserved = total_of(needs), self._reservations.remaining()
        missing = shortfall(self.limits, self._usage_in_limits(), reserved, needed)
        if not missing.exists:
            return
        self.collect(missing)
        usage = self._usage_in_limits()
        if shortfall(self.limits, usage, reserved, needed).exists:
            why = arithmetic(self.limits, usage, reserved, needed)
            needed_bytes = sum(max(0, each) for each in needed.values())
            raise OutOfDisk(f"There is no room for {purpose}. {why} {self._advice()}", needed_bytes=needed_bytes)

    def _advice(self) -> str:
        kept = [each for each in self._candidates() if each.in_use is not None]
        later = sum(each.size_bytes for each in kept)
        waiting = f"{megabytes(later)} more could be removed once it is not in use. " if later else ""
        return f"{waiting}`slmops disk --all` shows what takes the room; remove something, or raise the limit in slmops.toml."

    def _circumstances(self) -> Circumstances:
        return Circumstances(self.limits, self._needed, time.time())

    def _needed(self) -> Names:
        return frozenset(name for keeper in self.keepers for name in keeper.needed())

    def _candidates(self) -> Iterator[Candidate]:
        at = self._circumstances()
        for keeper in self.keepers:
            yield from keeper.candidates(at)

    def _remove(self, candidate: Candidate, at: Circumstances) -> int | None:
        fields = {"kind": str(candidate.kind), "name": candidate.name, "why": candidate.why}
        for keeper in self.keepers:
            try:
                freed = keeper.remove(candidate, at)
            except (RegistryBusy, NotWritable, OutOfDisk) as error:
                _log.warning("not removed", extra={"fields": fields | {"problem": error.message}})
                return None
            if freed is not None:
                with self._counting:
                    self._collected[candidate.kind] += freed
                _log.info("removed to make room", extra={"fields": fields | {"bytes": freed}})
                return freed
        return None
