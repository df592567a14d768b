"""The shapes of `/admin/registry/disk`, which `slmops disk --json` prints too."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from model_registry.disk_space.candidates import Candidate
from model_registry.disk_space.home_disk import DiskReport


class KindBody(BaseModel):
    """quota_bytes: null for none. reserved_bytes: for work in progress. reclaimable_bytes: what could be removed now."""

    kind: str
    used_bytes: int
    num_files: int
    quota_bytes: int | None
    reserved_bytes: int
    reclaimable_bytes: int


class ItemBody(BaseModel):
    """freed_bytes: what comes free when it alone is removed; less than used_bytes where it shares files with others."""

    kind: str
    name: str
    used_bytes: int
    freed_bytes: int


class CandidateBody(BaseModel):
    """stage: staging, download, orphan, cache, upload, job, version, the first to go first. last_used: seconds since the epoch.

    is_due: it goes whether room is needed or not. planned: a collection would remove it now. in_use: why it stays, else null.
    """

    kind: str
    name: str
    stage: str
    size_bytes: int
    last_used: float
    why: str
    is_due: bool
    planned: bool
    in_use: str | None


class DiskBody(BaseModel):
    """max_bytes, min_free_bytes: the limits of the home and of the file system. items: the largest first."""

    object: Literal["disk"] = "disk"
    home: str
    used_bytes: int
    max_bytes: int | None
    free_bytes: int
    total_bytes: int
    min_free_bytes: int
    kinds: list[KindBody]
    items: list[ItemBody]
    candidates: list[CandidateBody]
    warnings: list[str]


def disk_body(report: DiskReport) -> DiskBody:
    usage, limits = report.usage, report.limits
    kinds = [
        KindBody(
            kind=str(kind),
            used_bytes=of_kind.used_bytes,
            num_files=of_kind.num_files,
            quota_bytes=limits.kinds.get(kind),
            reserved_bytes=report.reserved.get(kind, 0),
            reclaimable_bytes=report.reclaimable(kind),
        )
        for kind, of_kind in usage.kinds.items()
    ]
    items = [
        ItemBody(kind=str(each.kind), name=each.name, used_bytes=each.used_bytes, freed_bytes=each.freed_bytes)
        for each in usage.items
    ]
    return DiskBody(
        home=str(report.home),
        used_bytes=usage.used_bytes,
        max_bytes=limits.max_bytes,
        free_bytes=usage.free_bytes,
        total_bytes=usage.total_bytes,
        min_free_bytes=limits.floor_bytes(usage.total_bytes),
        kinds=kinds,
        items=items,
        candidates=[_candidate(each, planned=each in report.planned) for each in report.candidates],
        warnings=[warning.message for warning in report.warnings],
    )


def _candidate(candidate: Candidate, *, planned: bool) -> CandidateBody:
    return CandidateBody(
        kind=str(candidate.kind),
        name=candidate.name,
        stage=candidate.stage.name.lower(),
        size_bytes=candidate.size_bytes,
        last_used=candidate.last_used_s,
        why=candidate.why,
        is_due=candidate.is_due,
        planned=planned,
        in_use=candidate.in_use,
    )
