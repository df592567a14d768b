"""What is removed to make room, decided purely: candidates and what is missing in, removals in their order out."""

from __future__ import annotations

from collections.abc import Iterable

from model_registry.disk_space.candidates import Candidate
from model_registry.disk_space.limits import Shortfall


def plan_collection(candidates: Iterable[Candidate], missing: Shortfall) -> tuple[Candidate, ...]:
    """Never what is in use. All that is due; of the rest, by stage and the longest unused first, while something is missing."""
    free = sorted((each for each in candidates if each.in_use is None), key=_order)
    due = [each for each in free if each.is_due]
    for each in due:
        missing = missing.after(each.kind, each.size_bytes)
    taken = []
    for each in free:
        if not each.is_due and each.size_bytes > 0 and missing.is_eased_by(each.kind):
            taken.append(each)
            missing = missing.after(each.kind, each.size_bytes)
    return tuple(sorted([*due, *taken], key=_order))


def _order(candidate: Candidate) -> tuple[int, float, str]:
    return candidate.stage, candidate.last_used_s, candidate.name
