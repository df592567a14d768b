"""What may be set for one model: a table `[models.NAME]` of slmops.toml, or the body of a reload. Null means: as for all models.

Owns the names and bounds of these settings; `Settings` has the same for all models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, WithJsonSchema

from runtime.machine.execution_provider import KNOWN
from runtime.messages import EngineOptions
from runtime.placement import Policy, Preference
from server.durations import KeepAlive

Seconds = Annotated[float, Field(allow_inf_nan=False, ge=0, le=86_400)]
Bytes = Annotated[ByteSize, WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}], "description": 'Or "512MiB".'})]
EngineName = Literal["auto", "onnx", "genai", "foundry", "fake"]
NumSlots = Annotated[int, Field(ge=1, le=1024)]
MaxWaiting = Annotated[int, Field(ge=1, le=1_000_000)]
Threads = Annotated[int, Field(ge=0, le=1024)]
ContextLength = Annotated[int, Field(ge=16, le=1 << 24)]
MaxTokenGap = Annotated[Seconds, Field(gt=0)]
PrefixCacheBytes = Annotated[Bytes, Field(ge=0, le=1 << 50)]
KvBudgetBytes = Annotated[Bytes, Field(ge=1 << 20, le=1 << 50)]
Replicas = Annotated[int, Field(ge=1, le=64)]


def split_names(value: object) -> object:
    """A comma-separated text (from a flag or a variable) as its parts; a list stays as it is."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _known_providers(names: tuple[str, ...]) -> tuple[str, ...]:
    policies, providers = [policy.value for policy in Policy], [known.short for known in KNOWN]
    if len(names) == 1 and names[0] in policies:
        return names
    unknown = [name for name in names if name.partition(":")[0] not in providers]
    if unknown or not names:
        what = f"has the unknown name {unknown[0]!r}" if unknown else "is empty"
        raise ValueError(f"{what}; it is one of {', '.join(policies)}, or providers in order: {', '.join(providers)}")
    return names


Providers = Annotated[tuple[str, ...], BeforeValidator(split_names), AfterValidator(_known_providers)]


class ModelSettings(BaseModel):
    """Each is explained in docs/configuration.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    engine: EngineName | None = None
    providers: Providers | None = None
    replicas: Replicas | None = None
    keep_alive: KeepAlive | None = None
    pin: bool | None = None
    num_slots: NumSlots | None = None
    max_waiting: MaxWaiting | None = None
    threads: Threads | None = None
    context_length: ContextLength | None = None
    max_token_gap_s: MaxTokenGap | None = None
    prefix_cache_bytes: PrefixCacheBytes | None = None
    kv_budget_bytes: KvBudgetBytes | None = None

    def over(self, beneath: ModelSettings) -> ModelSettings:
        """These, and where they are null those beneath."""
        return beneath.model_copy(update={name: value for name, value in self if value is not None})

    def engine_options(self) -> EngineOptions:
        """What a worker is told; defaults where nothing is set."""
        given: dict[str, Any] = {name: getattr(self, name) for name in EngineOptions.__struct_fields__ if hasattr(self, name)}
        plain: dict[str, Any] = {name: int(v) if isinstance(v, ByteSize) else v for name, v in given.items() if v is not None}
        return EngineOptions(**plain)

    def preference(self) -> Preference:
        names = self.providers or (Policy.AUTO.value,)
        return Policy(names[0]) if names[0] in list(Policy) else names
