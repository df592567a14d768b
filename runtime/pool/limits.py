"""What all models of a pool together may take. By default: most of this machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.machine.cores import usable_cores
from runtime.pool.capacity import Budget
from runtime.pool.memory import machine_memory_bytes

MACHINE_SHARE = 0.8  # of the machine's memory, what models get without being told


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """budget: memory and number of models. num_cores: shared out among the workers."""

    budget: Budget = field(default_factory=lambda: Budget(int(machine_memory_bytes() * MACHINE_SHARE)))
    num_cores: int = field(default_factory=usable_cores)
