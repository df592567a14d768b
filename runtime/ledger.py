"""What each model in memory is charged: as estimated before it loads, as measured afterwards. Asks `capacity` what fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runtime.capacity import Budget, Demand, Resident, Verdict, plan_room
from runtime.load_spec import Candidate, LoadSpec
from runtime.resident_model import ResidentModel


class Ledger:
    """Remembers what was measured of a model also while it is not loaded."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._measured: dict[tuple[str, str], int] = {}  # label, folder -> what a worker took beside its KV, in bytes

    def plan(self, spec: LoadSpec, residents: Sequence[Resident]) -> Verdict:
        """For its largest candidate, so that there is room for whichever can load."""
        demand = max((self._demand(spec, each) for each in spec.candidates), key=lambda each: each.needed_bytes)
        return plan_room(demand, residents, self._budget)

    def plan_beside(self, spec: LoadSpec, candidate: Candidate, residents: Sequence[Resident]) -> Verdict:
        """For a model that counts already, or replaces one that does: memory alone matters, and nobody leaves for it."""
        staying = [replace(each, is_busy=True) for each in residents]
        return plan_room(self._demand(spec, candidate), staying, Budget(self._budget.memory_bytes))

    def charge(self, model: ResidentModel, candidate: Candidate, kv_bytes: int) -> None:
        """kv_bytes: what each of its workers may use for KV."""
        fixed = self._demand(model.spec, candidate).memory.fixed_bytes
        model.kv_bytes = kv_bytes
        model.charge_bytes = model.spec.replicas * (fixed + kv_bytes)

    def measure(self, model: ResidentModel) -> None:
        """Corrects the estimate by what the model's largest worker really takes beside its KV."""
        taken = [each.stats.resident_bytes - each.stats.kv_bytes for each in model.view().replicas if each.stats is not None]
        if model.candidate is None or not taken:
            return
        key = (model.label, str(model.candidate.folder))
        self._measured[key] = max(self._measured.get(key, 0), *taken)
        self.charge(model, model.candidate, model.kv_bytes)

    def _demand(self, spec: LoadSpec, candidate: Candidate) -> Demand:
        measured = self._measured.get((spec.label, str(candidate.folder)))
        return Demand(spec.label, candidate.memory.corrected(measured), spec.replicas)


def resident(model: ResidentModel, *, is_leaving: bool) -> Resident:
    return Resident(
        label=model.label,
        charge_bytes=model.charge_bytes,
        last_used=model.last_used,
        is_busy=model.is_busy,
        is_pinned=model.pinned,
        is_leaving=is_leaving,
    )
