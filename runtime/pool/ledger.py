"""What each model in memory is charged: reserved as estimated while it loads, as measured afterwards.

Uses `capacity` to decide what fits.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.pool.capacity import Budget, Demand, NeverFits, Resident, Verdict, explain, plan_room
from runtime.pool.failures import no_room
from runtime.pool.loaded_model import Candidate, LoadSpec
from runtime.pool.memory import MemoryEstimate
from runtime.pool.resident_model import ResidentModel
from runtime.protocol.errors import NotReady


class Ledger:
    """Remembers what was measured of a model also while it is not loaded."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._measured: dict[tuple[str, ...], int] = {}  # by `_key`: what a worker took beside its KV, in bytes

    def plan(self, spec: LoadSpec, residents: Sequence[Resident], *, replaces: bool = False) -> Verdict:
        """Plans for the largest candidate that can ever fit, so that there is room for whichever loads.

        replaces: one of the residents, so that it makes one model more for a moment only.
        """
        budget = Budget(self._budget.memory_bytes) if replaces else self._budget
        verdicts = [plan_room(demand, residents, budget) for demand in self._demands(spec)]
        return next((verdict for verdict in verdicts if not isinstance(verdict, NeverFits)), verdicts[-1])

    def no_room(self, spec: LoadSpec, residents: Sequence[Resident]) -> NotReady:
        """The error for callers whose load found no room."""
        return no_room(explain(self._demands(spec)[-1], residents, self._budget), retry_after_s=2.0)

    def grant(self, model: ResidentModel, candidate: Candidate) -> int | None:
        """Bytes of KV for each worker, out of what is reserved for the model. None where its KV was not estimated.

        Raises NotReady: this candidate needs more.
        """
        demand = self._demand(model.spec, candidate)
        if model.charge_bytes < demand.needed_bytes:
            raise no_room(explain(demand, (), self._budget))
        spare_bytes = model.charge_bytes // demand.replicas - demand.memory.fixed_bytes
        model.kv_bytes = min(spare_bytes, demand.wanted_kv_bytes(self._budget))
        return model.kv_bytes if demand.memory.most_kv_bytes else None

    def measure(self, model: ResidentModel) -> None:
        """Corrects what a loaded model is charged by what its largest worker really takes beside its KV."""
        if model.candidate is None:
            return
        key = _key(model.label, model.candidate)
        stats = [replica.view().stats for replica in model.replicas]
        taken = [each.resident_bytes - each.kv_bytes for each in stats if each is not None]
        if taken:
            self._measured[key] = max(self._measured.get(key, 0), *taken)
        fixed_bytes = self._memory(model.label, model.candidate).fixed_bytes
        model.charge_bytes = len(model.replicas) * (fixed_bytes + model.kv_bytes)

    def _demands(self, spec: LoadSpec) -> list[Demand]:
        """The demands of its candidates, the largest first."""
        demands = (self._demand(spec, candidate) for candidate in spec.candidates)
        return sorted(demands, key=lambda demand: demand.needed_bytes, reverse=True)

    def _demand(self, spec: LoadSpec, candidate: Candidate) -> Demand:
        return Demand(spec.label, self._memory(spec.label, candidate), spec.replicas)

    def _memory(self, label: str, candidate: Candidate) -> MemoryEstimate:
        return candidate.memory.corrected(self._measured.get(_key(label, candidate)))


def _key(label: str, candidate: Candidate) -> tuple[str, ...]:
    """Engines differ in what they take for the same files."""
    return label, str(candidate.folder), candidate.engine, candidate.provider.name


def resident(model: ResidentModel, *, is_arriving: bool = False) -> Resident:
    """is_arriving: loads beside what it will replace, and stays until then."""
    is_leaving = model.unload_reason is not None
    return Resident(
        label=model.label,
        charge_bytes=model.charge_bytes,
        last_used=model.last_used,
        is_busy=model.num_leases > 0 if is_leaving else model.is_busy or is_arriving,
        is_pinned=model.pinned and not is_arriving,
        is_leaving=is_leaving,
    )
