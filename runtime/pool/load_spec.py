"""What is asked of the pool: which model, the ways to run it in order of preference, and how long it stays. Plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from model_registry.records import DECODER, Capability
from runtime.machine.execution_provider import HOST
from runtime.messages import EngineOptions, Load, ProviderChoice
from runtime.placement import Rejection
from runtime.pool.memory import MemoryEstimate

FOREVER = float("inf")
DEFAULT_KEEP_ALIVE_S = 600.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a model: a variant's folder by an engine on a provider. reason: why it stands where it does, for people.

    memory: on the host. place: where its weights and KV are, `host` or a device's id; there it needs place_bytes.
    """

    folder: Path
    engine: str
    memory: MemoryEstimate
    provider: ProviderChoice = field(default_factory=ProviderChoice)
    variant: str = ""
    reason: str = ""
    place: str = HOST
    place_bytes: int = 0

    def load(self, options: EngineOptions) -> Load:
        """The message that makes a worker load this candidate."""
        return Load(engine=self.engine, folder=str(self.folder), options=options, provider=self.provider)


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """label: a version's (`smollm2-135m:1`). candidates: at least one, the best first; the next is tried when one cannot load.

    options: threads 0 means a share of the cores, kv_budget_bytes None a share of the memory budget. replicas: workers.
    keep_alive_s: how long it stays without requests, FOREVER for ever. pinned: loaded until told otherwise; never evicted.
    unused: builds of the version that this machine cannot run, and why. capabilities: what the version allows.
    """

    label: str
    candidates: tuple[Candidate, ...]
    options: EngineOptions = field(default_factory=EngineOptions)
    replicas: int = 1
    keep_alive_s: float = DEFAULT_KEEP_ALIVE_S
    pinned: bool = False
    unused: tuple[Rejection, ...] = ()
    capabilities: frozenset[Capability] = DECODER
