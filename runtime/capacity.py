"""Whether a model fits beside the others, and who must leave first. Pure: what is loaded in, a verdict out.

    1. It could not fit if everything that may leave had left        -> NeverFits, with the arithmetic
    2. It fits, or fits once some idle models have left               -> Fits: evict these, least recently used first
    3. It fits when busy models have become idle, or leaving ones gone -> MustWait for these

A busy model is never evicted. KV memory stretches: a model wants room for all its rows, is content with a quarter of that while
idle models would have to leave for more, and needs one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.memory import MemoryEstimate

KV_SHARE = 0.25  # of the budget, the most KV that a model gets without being told
CONTENT = 0.25  # of the KV it wants, what a model is content with
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Budget:
    """max_models: None means any number."""

    memory_bytes: int
    max_models: int | None = None


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that takes memory. last_used: any clock; the smallest is evicted first. leaving: its memory will be free soon."""

    label: str
    charge_bytes: int
    last_used: float = 0.0
    is_busy: bool = False
    is_pinned: bool = False
    is_leaving: bool = False

    @property
    def may_leave(self) -> bool:
        return not self.is_pinned and not self.is_leaving


@dataclass(frozen=True, slots=True)
class Demand:
    """What a model would take: `replicas` workers of this estimate."""

    label: str
    memory: MemoryEstimate
    replicas: int = 1

    @property
    def needed_bytes(self) -> int:
        return self.replicas * (self.memory.fixed_bytes + self.memory.least_kv_bytes)

    def wanted_kv_bytes(self, budget: Budget) -> int:
        """Per worker."""
        share = int(budget.memory_bytes * KV_SHARE) // self.replicas
        return min(self.memory.most_kv_bytes, max(self.memory.least_kv_bytes, share))

    def content_bytes(self, budget: Budget) -> int:
        kv = max(self.memory.least_kv_bytes, int(self.wanted_kv_bytes(budget) * CONTENT))
        return self.replicas * (self.memory.fixed_bytes + kv)


@dataclass(frozen=True, slots=True)
class Fits:
    """After these have left. kv_bytes: what each worker may use for KV."""

    kv_bytes: int
    evict: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MustWait:
    """Until these busy models are idle (none: until the leaving ones are gone). arithmetic: for who gives up waiting."""

    busy: tuple[str, ...]
    arithmetic: str


@dataclass(frozen=True, slots=True)
class NeverFits:
    """arithmetic: what it needs, what there is, and what could be changed."""

    arithmetic: str


Verdict = Fits | MustWait | NeverFits


def plan_room(demand: Demand, residents: Sequence[Resident], budget: Budget) -> Verdict:
    staying = [each for each in residents if each.is_pinned and not each.is_leaving]
    if not _has_room(demand.needed_bytes, staying, budget):
        return NeverFits(explain(demand, staying, budget))
    idle = sorted((each for each in residents if each.may_leave and not each.is_busy), key=lambda each: each.last_used)
    for target in (demand.content_bytes(budget), demand.needed_bytes):
        for count in range(len(idle) + 1):
            left = _without(residents, idle[:count])
            if _has_room(target, left, budget):
                return Fits(_granted(demand, left, budget), tuple(each.label for each in idle[:count]))
    remaining = [each for each in residents if not each.is_leaving and each not in idle]
    busy = sorted((each for each in remaining if each.may_leave), key=lambda each: each.last_used)
    count = next(n for n in range(len(busy) + 1) if _has_room(demand.needed_bytes, _without(remaining, busy[:n]), budget))
    return MustWait(tuple(each.label for each in busy[:count]), explain(demand, residents, budget))


def explain(demand: Demand, residents: Sequence[Resident], budget: Budget) -> str:
    """The arithmetic, for people."""
    memory, times = demand.memory, f"{demand.replicas} x " if demand.replicas > 1 else ""
    parts = f"{times}({_mib(memory.fixed_bytes)} for weights and work + {_mib(memory.least_kv_bytes)} for one row of KV)"
    held = sum(each.charge_bytes for each in residents)
    names = ", ".join(f"{each.label} {_mib(each.charge_bytes)}{' (pinned)' if each.is_pinned else ''}" for each in residents)
    text = (
        f"{demand.label} needs {_mib(demand.needed_bytes)} = {parts}; of the memory budget of {_mib(budget.memory_bytes)}, "
        f"{_mib(max(0, budget.memory_bytes - held))} are free beside {names or 'no other model'}"
    )
    if budget.max_models is not None and len(residents) >= budget.max_models:
        text += f"; {len(residents)} of at most {budget.max_models} models are loaded (max_loaded_models)"
    return text


def _without(residents: Sequence[Resident], some: Sequence[Resident]) -> list[Resident]:
    return [each for each in residents if each not in some]


def _has_room(needed_bytes: int, residents: Sequence[Resident], budget: Budget) -> bool:
    held = sum(each.charge_bytes for each in residents)
    return held + needed_bytes <= budget.memory_bytes and (budget.max_models is None or len(residents) < budget.max_models)


def _granted(demand: Demand, residents: Sequence[Resident], budget: Budget) -> int:
    free = budget.memory_bytes - sum(each.charge_bytes for each in residents)
    return min(demand.wanted_kv_bytes(budget), free // demand.replicas - demand.memory.fixed_bytes)


def _mib(size: int) -> str:
    return f"{-(-size // _MIB):,} MiB"
