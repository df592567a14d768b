"""Whether a model fits beside the others within the pool's limits, and which idle models must be unloaded first. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runtime.machine.hardware import usable_cores
from runtime.pool.memory import MemoryEstimate, machine_memory_bytes

KV_SHARE = 0.25  # of the budget, the most KV that a model gets by default
CONTENT = 0.25  # of the KV it wants, what a model is content with
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Budget:
    """max_models: None means any number."""

    memory_bytes: int
    max_models: int | None = None


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that takes memory. last_used: any clock; the smallest is evicted first.

    is_leaving: its memory will be free, soon when it is idle, when its requests are done when it is busy.
    """

    label: str
    charge_bytes: int
    last_used: float = 0.0
    is_busy: bool = False
    is_pinned: bool = False
    is_leaving: bool = False


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
    """Now. charge_bytes: what it may take, with all its replicas and their KV."""

    charge_bytes: int


@dataclass(frozen=True, slots=True)
class MustEvict:
    """Evict these idle models, in this order; then decide again."""

    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MustWait:
    """Wait until these busy models are idle, and those that are leaving have left."""

    busy: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NeverFits:
    """arithmetic: what it needs and what there is."""

    arithmetic: str


Verdict = Fits | MustEvict | MustWait | NeverFits


def plan_room(demand: Demand, residents: Sequence[Resident], budget: Budget) -> Verdict:
    """Whether the model fits beside the others, and which must be unloaded first.

    1. `NeverFits`, with the arithmetic, if it did not fit even without all models that may be unloaded.
    2. `Fits`, if it fits now.
    3. `MustEvict`, if it fits without some idle models: these, the least recently used first.
    4. `MustWait`, if it fits once models that are being unloaded are gone, or busy ones are idle.

    A busy model is never evicted, and models that are being unloaded are waited for before more are evicted. KV memory stretches: a
    model gets room for all its rows, a quarter of that while idle models would have to be evicted for more, and one row at least.
    """
    pinned = [each for each in residents if _stays(each)]
    needed, content = demand.needed_bytes, demand.content_bytes(budget)
    if not _has_room(needed, pinned, budget):
        return NeverFits(explain(demand, pinned, budget))
    others = sorted((each for each in residents if not _stays(each) and not _goes(each)), key=_rank)
    num_idle = sum(not each.is_busy for each in others)
    for target in (content, needed):
        if _has_room(target, residents, budget):
            return Fits(_charge(demand, residents, budget))
        for count in range(num_idle + 1):
            if _has_room(target, [*pinned, *others[count:]], budget):
                return MustEvict(_labels(others[:count])) if count else MustWait()
    count = next(n for n in range(num_idle, len(others) + 1) if _has_room(needed, [*pinned, *others[n:]], budget))
    return MustWait(_labels(others[num_idle:count]))


def explain(demand: Demand, residents: Sequence[Resident], budget: Budget) -> str:
    """The arithmetic, for people."""
    memory, times = demand.memory, f"{demand.replicas} x " if demand.replicas > 1 else ""
    parts = f"{times}({_mib(memory.fixed_bytes)} for weights and work + {_mib(memory.least_kv_bytes)} for one row of KV)"
    held = sum(each.charge_bytes for each in residents)
    names = ", ".join(f"{each.label} {_mib(each.charge_bytes)}{_why_it_stays(each)}" for each in residents)
    text = (
        f"{demand.label} needs {_mib(demand.needed_bytes)} = {parts}; of the memory budget of {_mib(budget.memory_bytes)}, "
        f"{max(0, budget.memory_bytes - held) // _MIB:,} MiB are free beside {names or 'no other model'}"
    )
    if budget.max_models is not None and len(residents) >= budget.max_models:
        text += f"; {len(residents)} of at most {budget.max_models} models are loaded (max_loaded_models)"
    return text


def _stays(resident: Resident) -> bool:
    return resident.is_pinned and not resident.is_leaving


def _goes(resident: Resident) -> bool:
    """Soon, and whatever is decided here."""
    return resident.is_leaving and not resident.is_busy


def _rank(resident: Resident) -> tuple[bool, bool, float]:
    """The sort key of evictions: the idle first, then the busy ones that leave anyway; among these, the least recently used."""
    return resident.is_busy, not resident.is_leaving, resident.last_used


def _labels(residents: Sequence[Resident]) -> tuple[str, ...]:
    """The labels of the models that are not leaving already."""
    return tuple(each.label for each in residents if not each.is_leaving)


def _has_room(needed_bytes: int, residents: Sequence[Resident], budget: Budget) -> bool:
    held = sum(each.charge_bytes for each in residents)
    return held + needed_bytes <= budget.memory_bytes and (budget.max_models is None or len(residents) < budget.max_models)


def _charge(demand: Demand, residents: Sequence[Resident], budget: Budget) -> int:
    """The charge with as much KV as it wants, or as there is."""
    free = budget.memory_bytes - sum(each.charge_bytes for each in residents)
    return min(free, demand.replicas * (demand.memory.fixed_bytes + demand.wanted_kv_bytes(budget)))


def _why_it_stays(resident: Resident) -> str:
    return " (leaving)" if resident.is_leaving else " (pinned)" if resident.is_pinned else " (busy)" if resident.is_busy else ""


def _mib(size: int) -> str:
    return f"{-(-size // _MIB):,} MiB"


MACHINE_SHARE = 0.8  # of the machine's memory, the models' budget by default


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """budget: memory and number of models. num_cores: shared out among the workers."""

    budget: Budget = field(default_factory=lambda: Budget(int(machine_memory_bytes() * MACHINE_SHARE)))
    num_cores: int = field(default_factory=usable_cores)
