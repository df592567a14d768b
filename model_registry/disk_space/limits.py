"""How much of the disk a home may take, decided purely: whether something fits, what is missing, and when to warn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from model_registry.disk_space.kinds import StorageKind
from model_registry.disk_space.usage import HomeUsage

_MIN_FREE_BYTES = 2 << 30
_MIN_FREE_SHARE = 0.05
_NEARLY_FULL = 0.9  # of a quota
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """max_bytes: of the whole home; kinds: of single kinds; None, or absent: as much as there is.

    min_free_bytes: of the file system, which new work leaves free; None: 2 GiB, or 5 % where that is less.
    keep_versions: how many versions of a model stay, beside those in use; None: all. keep_jobs_days, keep_uploads_days: after which
    the checkpoints of ended jobs, and uploads that no job needs, are removed; None: never for their age.
    offline: nothing can be fetched again, so what was made from a download stays.
    """

    max_bytes: int | None = None
    kinds: Mapping[StorageKind, int] = field(default_factory=dict)
    min_free_bytes: int | None = 0
    keep_versions: int | None = None
    keep_jobs_days: float | None = None
    keep_uploads_days: float | None = None
    offline: bool = False

    @property
    def are_set(self) -> bool:
        """Whether there is any limit on what is written."""
        return self.have_quotas or self.min_free_bytes != 0

    @property
    def have_quotas(self) -> bool:
        """Whether there is a limit on what the home itself takes."""
        return self.max_bytes is not None or bool(self.kinds)

    def floor_bytes(self, total_bytes: int) -> int:
        """What has to stay free of a file system of this size."""
        if self.min_free_bytes is not None:
            return self.min_free_bytes
        return min(_MIN_FREE_BYTES, int(total_bytes * _MIN_FREE_SHARE))

    @property
    def keep_jobs_s(self) -> float | None:
        return None if self.keep_jobs_days is None else self.keep_jobs_days * _DAY_S

    @property
    def keep_uploads_s(self) -> float | None:
        return None if self.keep_uploads_days is None else self.keep_uploads_days * _DAY_S


NO_LIMITS = DiskLimits()
Needs = Mapping[StorageKind, int]  # bytes that are going to be written, by kind


@dataclass(frozen=True, slots=True)
class Shortfall:
    """How many bytes too many there are: of single kinds, of the whole home, and of the file system. All 0: everything fits."""

    kinds: Mapping[StorageKind, int] = field(default_factory=dict)
    home_bytes: int = 0
    free_bytes: int = 0

    @property
    def exists(self) -> bool:
        return self.home_bytes > 0 or self.free_bytes > 0 or any(self.kinds.values())

    def after(self, kind: StorageKind, freed_bytes: int) -> Shortfall:
        """What is left of it once so much of a kind was removed."""
        kinds = {each: max(0, missing - (freed_bytes if each is kind else 0)) for each, missing in self.kinds.items()}
        return Shortfall(kinds, max(0, self.home_bytes - freed_bytes), max(0, self.free_bytes - freed_bytes))

    def is_eased_by(self, kind: StorageKind) -> bool:
        """Whether removing something of this kind helps."""
        return self.home_bytes > 0 or self.free_bytes > 0 or self.kinds.get(kind, 0) > 0


def shortfall(limits: DiskLimits, usage: HomeUsage, reserved: Needs, needed: Needs) -> Shortfall:
    """reserved: what work in progress is still going to write."""
    extra = {kind: reserved.get(kind, 0) + needed.get(kind, 0) for kind in StorageKind}
    total = sum(extra.values())
    kinds = {kind: max(0, usage.used(kind) + extra[kind] - most) for kind, most in limits.kinds.items()}
    home = 0 if limits.max_bytes is None else max(0, usage.used_bytes + total - limits.max_bytes)
    free = max(0, total + limits.floor_bytes(usage.total_bytes) - usage.free_bytes)
    return Shortfall(kinds, home, free)


def arithmetic(limits: DiskLimits, usage: HomeUsage, reserved: Needs, needed: Needs) -> str:
    """Which limits do not hold, in sentences with every number: what is needed, allowed, used, reserved, free."""
    missing = shortfall(limits, usage, reserved, needed)
    sentences = [
        _of_quota(f"disk.{kind}_max_bytes", most, usage.used(kind), reserved.get(kind, 0), needed.get(kind, 0))
        for kind, most in limits.kinds.items()
        if missing.kinds[kind]
    ]
    if missing.home_bytes and limits.max_bytes is not None:
        total = sum(reserved.values()), sum(needed.values())
        sentences.append(_of_quota("disk.max_bytes", limits.max_bytes, usage.used_bytes, *total))
    if missing.free_bytes:
        sentences.append(
            f"It needs {megabytes(sum(needed.values()))}, and the file system has {megabytes(usage.free_bytes)} free, of which "
            f"{megabytes(sum(reserved.values()))} are reserved for work in progress and "
            f"{megabytes(limits.floor_bytes(usage.total_bytes))} have to stay free (disk.min_free_bytes)."
        )
    return " ".join(sentences)


def _of_quota(setting: str, most: int, used: int, reserved: int, needed: int) -> str:
    return (
        f"It needs {megabytes(needed)}, and {setting} allows {megabytes(most)}, of which {megabytes(used)} are used and "
        f"{megabytes(reserved)} are reserved for work in progress."
    )


@dataclass(frozen=True, slots=True)
class DiskWarning:
    """limit: the setting that is nearly reached. message: a sentence with the numbers."""

    limit: str
    message: str


def warnings(limits: DiskLimits, usage: HomeUsage) -> Iterator[DiskWarning]:
    """What is nearly full."""
    quotas = [(f"disk.{kind}_max_bytes", most, usage.used(kind)) for kind, most in limits.kinds.items()]
    quotas += [] if limits.max_bytes is None else [("disk.max_bytes", limits.max_bytes, usage.used_bytes)]
    for setting, most, used in quotas:
        if used >= most * _NEARLY_FULL:
            yield DiskWarning(setting, f"{megabytes(used)} of the {megabytes(most)} that {setting} allows are used.")
    floor, setting = limits.floor_bytes(usage.total_bytes), "disk.min_free_bytes"
    free = f"The file system has {megabytes(usage.free_bytes)} free"
    if usage.free_bytes < floor:
        yield DiskWarning(setting, f"{free}, less than the {megabytes(floor)} of {setting}: new work is refused.")
    elif usage.free_bytes < 2 * floor:
        yield DiskWarning(setting, f"{free}, of which {megabytes(floor)} have to stay free ({setting}).")


def megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"
