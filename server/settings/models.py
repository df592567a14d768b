"""What may be set for one model: a table `[models.NAME]` of slmops.toml, or the body of a reload. Null means: as for all models.

Owns the names and bounds of these settings; `Settings` has the same for all models.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, WithJsonSchema

from runtime.machine.execution_provider import KNOWN
from runtime.machine.placement import Policy, Preference
from runtime.protocol.messages import EngineOptions
from runtime.text.formats.protocol import REASONING_FORMATS
from runtime.text.formats.recognition import NONE, TOOL_FORMATS
from server.settings.units import KeepAlive

Seconds = Annotated[float, Field(allow_inf_nan=False, ge=0, le=86_400)]
EngineName = Literal["auto", "onnx", "genai", "foundry", "fake"]
NumSlots = Annotated[int, Field(ge=1, le=1024)]
MaxWaiting = Annotated[int, Field(ge=1, le=1_000_000)]
Threads = Annotated[int, Field(ge=0, le=1024)]
ContextLength = Annotated[int, Field(ge=16, le=1 << 24)]
MaxTokenGap = Annotated[Seconds, Field(gt=0)]


def _bytes_schema(least: int) -> WithJsonSchema:
    """Texts of other units are read too."""
    text = {"type": "string", "pattern": "^[1-9][0-9]{0,5}[MG]iB$"}
    return WithJsonSchema({"anyOf": [{"type": "integer", "minimum": least, "maximum": 1 << 50}, text]})


PrefixCacheBytes = Annotated[ByteSize, Field(ge=0, le=1 << 50), _bytes_schema(0)]
KvBudgetBytes = Annotated[ByteSize, Field(ge=1 << 20, le=1 << 50), _bytes_schema(1 << 20)]
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
        what = f"has the unknown name {unknown[0][:64]!r}" if unknown else "is empty"
        raise ValueError(f"{what}; it is one of {', '.join(policies)}, or providers in order: {', '.join(providers)}")
    return names


def _one_of(formats: Iterable[str]) -> tuple[AfterValidator, WithJsonSchema]:
    names = (*formats, NONE)

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"is not known; it is one of {', '.join(names)}, or unset to go by the chat template")
        return name

    return AfterValidator(check), WithJsonSchema({"type": "string", "enum": list(names)})


ToolFormatName = Annotated[str, *_one_of(TOOL_FORMATS)]
ReasoningFormatName = Annotated[str, *_one_of(REASONING_FORMATS)]
_PROVIDER = f"({'|'.join(known.short for known in KNOWN)})(:[0-9]+)?"
_PROVIDERS_SCHEMA = {
    "anyOf": [
        {"type": "string", "enum": [policy.value for policy in Policy]},
        {"type": "string", "pattern": f"^{_PROVIDER}(,{_PROVIDER})*$"},
        {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": f"^{_PROVIDER}$"}},
    ]
}
Providers = Annotated[
    tuple[str, ...], BeforeValidator(split_names), AfterValidator(_known_providers), WithJsonSchema(_PROVIDERS_SCHEMA)
]


class ModelSettings(BaseModel):
    """The settings of one model; None: as for all models."""

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
    tool_format: ToolFormatName | None = None
    reasoning_format: ReasoningFormatName | None = None

    def over(self, beneath: ModelSettings) -> ModelSettings:
        """These, and where they are null those beneath."""
        return beneath.model_copy(update={name: value for name, value in self if value is not None})

    def engine_options(self) -> EngineOptions:
        """The options of a worker; defaults where nothing is set."""
        given: dict[str, Any] = {name: getattr(self, name) for name in EngineOptions.__struct_fields__ if hasattr(self, name)}
        plain: dict[str, Any] = {name: int(v) if isinstance(v, ByteSize) else v for name, v in given.items() if v is not None}
        return EngineOptions(**plain)

    def preference(self) -> Preference:
        names = self.providers or (Policy.AUTO.value,)
        return Policy(names[0]) if names[0] in list(Policy) else names
