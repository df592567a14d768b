"""What is requested of the pool (`LoadSpec`), what it reports of a model in memory, and its events: frozen values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from model_registry.records import DECODER, Capability
from runtime.machine.execution_provider import HOST
from runtime.machine.placement import Rejection
from runtime.pool.memory import MemoryEstimate
from runtime.protocol.messages import EngineOptions, Load, ModelInfo, ProviderChoice, Stats

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
    keep_alive_s: how long it stays without requests, FOREVER for ever. pinned: loaded until it is unloaded on request; never
    evicted. unused: builds of the version that this machine cannot run, and why. capabilities: what the version allows.
    """

    label: str
    candidates: tuple[Candidate, ...]
    options: EngineOptions = field(default_factory=EngineOptions)
    replicas: int = 1
    keep_alive_s: float = DEFAULT_KEEP_ALIVE_S
    pinned: bool = False
    unused: tuple[Rejection, ...] = ()
    capabilities: frozenset[Capability] = DECODER


class ModelState(StrEnum):
    """LOADING: the first load. READY: serves. RESTARTING: its worker died, another loads. UNLOADING: drains; takes nothing new."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    UNLOADING = "unloading"


@dataclass(frozen=True, slots=True)
class Fallback:
    """A way to run the model that was tried and could not load; the next one was taken."""

    candidate: Candidate
    why: str


@dataclass(frozen=True, slots=True)
class LoadedReplica:
    """One worker. info, stats: None until it is ready."""

    state: ModelState
    info: ModelInfo | None
    stats: Stats | None
    num_restarts: int


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A row of `slmops ps`. candidate: how it runs, None until it is ready. charge_bytes: what the memory budget counts for it.

    loaded_at, idle_since, expires_at: Unix times; idle_since None while busy, expires_at None while busy or kept for ever.
    """

    spec: LoadSpec
    state: ModelState
    candidate: Candidate | None
    fallbacks: tuple[Fallback, ...]
    replicas: tuple[LoadedReplica, ...]
    charge_bytes: int
    num_leases: int
    pinned: bool
    keep_alive_s: float
    loaded_at: float | None
    idle_since: float | None
    expires_at: float | None

    @property
    def info(self) -> ModelInfo | None:
        return next((replica.info for replica in self.replicas if replica.info is not None), None)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do; until it is ready, what its version allows."""
        return self.spec.capabilities if self.info is None else self.info.capabilities

    @property
    def stats(self) -> Stats | None:
        """The statistics of all replicas together."""
        return _together([replica.stats for replica in self.replicas if replica.stats is not None])

    @property
    def num_slots(self) -> int:
        """Sequences decoded together at most, by all replicas."""
        return self.spec.options.num_slots * self.spec.replicas

    @property
    def num_restarts(self) -> int:
        return sum(replica.num_restarts for replica in self.replicas)


class UnloadReason(StrEnum):
    """EXPIRED: its keep-alive ended. EVICTED: another model needed the room. REQUESTED: by an operator. REPLACED: by a reload.

    CLOSED: the pool ends.
    """

    EXPIRED = "expired"
    EVICTED = "evicted"
    REQUESTED = "asked"
    REPLACED = "replaced"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Loaded:
    label: str
    candidate: Candidate
    seconds: float


@dataclass(frozen=True, slots=True)
class LoadFailed:
    label: str
    why: str


@dataclass(frozen=True, slots=True)
class FellThrough:
    """A candidate could not load, and the next is tried."""

    label: str
    fallback: Fallback


@dataclass(frozen=True, slots=True)
class Died:
    """A worker ended, by a crash or because it hung."""

    label: str
    why: str


@dataclass(frozen=True, slots=True)
class Left:
    label: str
    unload_reason: UnloadReason


PoolEvent = Loaded | LoadFailed | FellThrough | Died | Left


def _together(stats: Sequence[Stats]) -> Stats | None:
    if len(stats) < 2:
        return stats[0] if stats else None
    return Stats(
        num_running=sum(each.num_running for each in stats),
        num_waiting=sum(each.num_waiting for each in stats),
        kv_usage=sum(each.kv_usage for each in stats) / len(stats),
        kv_bytes=sum(each.kv_bytes for each in stats),
        prefix_queries_total=sum(each.prefix_queries_total for each in stats),
        prefix_hits_total=sum(each.prefix_hits_total for each in stats),
        preemptions_total=sum(each.preemptions_total for each in stats),
        steps_total=sum(each.steps_total for each in stats),
        resident_bytes=sum(each.resident_bytes for each in stats),
        threads=sum(each.threads for each in stats),
        cpu_s=sum(each.cpu_s for each in stats),
    )
