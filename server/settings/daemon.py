"""The daemon's settings: their names, bounds and defaults, and where each value came from.

Owns the order flags, `SLMOPS_*` variables, `slmops.toml`, defaults. Knows nothing of HTTP or of the command line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ByteSize, Field, PrivateAttr, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from model_registry.disk_space.limits import DiskLimits
from model_registry.names import parse_label
from runtime.pool.capacity import Budget, PoolLimits
from runtime.pool.watchdog import Patience
from server.settings.disk import DiskSettings, DiskTable
from server.settings.jobs import ONLY_IN_FILE, EndpointSettings, EndpointTables, JobSettings, from_text, names_what_is_only_in_file
from server.settings.models import (
    ContextLength,
    EngineName,
    KvBudgetBytes,
    MaxTokenGap,
    MaxWaiting,
    ModelSettings,
    NumSlots,
    PrefixCacheBytes,
    Providers,
    Replicas,
    Seconds,
    Threads,
    split_names,
)
from server.settings.toml_file import DEFAULT_HOME, ENV_PREFIX, FILE_NAME, InvalidSettings, find_file, read_file
from server.settings.units import KeepAlive, MemoryShare, bytes_of

MASK = "********"


def _tables(value: object) -> object:
    """A JSON object (from a variable) as the tables of models; other values stay as they are."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise ValueError(f'must be a JSON object such as {{"NAME": {{"keep_alive": "1h"}}}} ({error})') from None


def _stripped(value: object) -> object:
    """A text without the space around it, which no header can carry."""
    if isinstance(value, SecretStr):
        return value.get_secret_value().strip()
    return value.strip() if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_names)]
Key = Annotated[SecretStr, Field(min_length=1), BeforeValidator(_stripped)]
JobTable = Annotated[JobSettings, NoDecode, BeforeValidator(from_text)]
Tables = Annotated[dict[str, ModelSettings], NoDecode, BeforeValidator(_tables)]
Plain = str | int | float | bool | list[str] | dict[str, Any] | None


class Settings(BaseSettings):
    """Every setting of the daemon. `Settings(port=9000)` is a flag; a keyword that is None counts as not given.

    Raises InvalidSettings, never pydantic's ValidationError.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    home: Path = Field(Path(DEFAULT_HOME), description="Folder of models, uploads and jobs.", validate_default=True)
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; addresses other than loopback need an API key.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    url: str | None = Field(None, description="Address of the daemon that commands use; unset: the one at host and port.")
    model: str = Field("smollm2-135m", min_length=1, description="The model that answers when a request names none.")
    engine: EngineName = Field("auto", description="What runs models; `fake` answers without any model.")
    providers: Annotated[Providers, NoDecode] = Field(("auto",), description="A policy, or execution providers in order.")
    api_key: Key | None = Field(None, description="A key with the scope `admin`; slmops commands send it.")
    allowed_hosts: Names = Field((), description="Host names, beside loopback, for requests without a key; `*` allows all.")
    cors_origins: Names = Field((), description="Web origins whose pages may use the daemon and change something; `*` allows all.")
    max_body_bytes: ByteSize = Field(ByteSize(8 << 20), ge=1024, le=1 << 30, description="Maximum size of a request body.")
    max_upload_bytes: ByteSize = Field(ByteSize(512 << 20), ge=1024, le=1 << 40, description="Maximum size of an uploaded file.")
    header_timeout_s: Seconds = Field(10.0, gt=0, description="Maximum time until a request's headers are complete.")
    body_timeout_s: Seconds = Field(30.0, gt=0, description="Maximum time without progress of a request's body.")
    write_timeout_s: Seconds = Field(60.0, gt=0, description="Maximum time in which a client reads nothing of its answer.")
    max_connections: int = Field(1024, ge=1, le=1_000_000, description="Maximum number of connections; the idlest makes room.")
    request_timeout_s: Seconds = Field(600.0, gt=0, description="Maximum time of a request in its engine.")
    load_timeout_s: Seconds = Field(60.0, gt=0, description="Maximum time a request waits for its model to load.")
    shutdown_grace_s: Seconds = Field(30.0, description="Time that running requests get to finish at shutdown.")
    step_timeout_s: Seconds = Field(60.0, gt=0, description="Maximum time of a step; a worker that takes longer is replaced.")
    memory_budget: MemoryShare = Field("80%", description="Memory of all models: a share of the machine's, or a size.")
    max_loaded_models: int | None = Field(None, ge=1, le=10_000, description="Maximum number of loaded models; unset: what fits.")
    keep_alive: KeepAlive = Field(600.0, description="Time a model stays loaded without requests; -1: for ever, 0: not at all.")
    replicas: Replicas = Field(1, description="Workers per model.")
    num_slots: NumSlots = Field(16, description="Sequences decoded together, per worker.")
    max_waiting: MaxWaiting = Field(
        256, description="Maximum number of queued answers per worker; beyond it, the client with the most gets 429."
    )
    threads: Threads = Field(0, description="Threads per worker; 0: a share of the physical cores.")
    context_length: ContextLength | None = Field(None, description="Maximum context length, in tokens; unset: the model's.")
    max_token_gap_s: MaxTokenGap = Field(0.1, description="Maximum time a new prompt may stall running answers.")
    prefix_cache_bytes: PrefixCacheBytes = Field(ByteSize(512 << 20), description="KV cache kept for prefix reuse, per worker.")
    kv_budget_bytes: KvBudgetBytes | None = Field(
        None, description="Maximum KV cache of a worker; unset: a share of memory_budget."
    )
    models: Tables = Field({}, description="Settings of single models, by name or `name:number`.")
    jobs: JobTable = Field(default_factory=lambda: JobSettings(), description="Settings of jobs that run beside serving.")
    disk: DiskTable = Field(default_factory=lambda: DiskSettings(), description="Limits on the disk, and what is kept.")
    endpoints: EndpointTables = Field({}, description="Servers that jobs may call, by name.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    log_format: Literal["text", "json"] = Field("text", description="Format of log lines; `json`: one object per line.")
    offline: bool = Field(False, description="Never download anything.")

    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict)

    def __init__(self, **flags: Any) -> None:
        given = {name: value for name, value in flags.items() if value is not None}
        file = find_file(given)
        content = read_file(file)
        origins = dict.fromkeys(content, str(file)) | _variables() | dict.fromkeys(given, "flag")
        _check_only_in_file(given.get("jobs"))
        try:
            super().__init__(**given)
        except ValidationError as error:
            lines = [_explain(problem, origins) for problem in error.errors(include_input=False, include_url=False)]
            raise InvalidSettings("; ".join(lines)) from None
        self._origins = origins

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then variables, then the file; defaults come last by themselves."""
        content = read_file(find_file(init_settings()))
        return init_settings, env_settings, InitSettingsSource(settings_cls, content)

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str | None) -> str | None:
        """Without a slash at the end, and without the /v1 that clients of OpenAI's API put there."""
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be an address such as http://HOST:8000 or https://HOST/PATH")
        return url.rstrip("/").removesuffix("/v1")

    @field_validator("models")
    @classmethod
    def _not_by_alias(cls, models: dict[str, ModelSettings]) -> dict[str, ModelSettings]:
        """What an alias means changes; a model's settings must not."""
        for name in models:
            if parse_label(name).alias is not None:
                raise ValueError(f"{name!r} names an alias; use the model's name, or a version as `name:number`")
        return models

    def of_model(self, label: str) -> ModelSettings:
        """label: `name:number`. What is set for this version, over what is set for its model, over what is set for all."""
        for_all = ModelSettings(**{name: getattr(self, name) for name in ModelSettings.model_fields if hasattr(self, name)})
        of_name = self.models.get(label.rpartition(":")[0], ModelSettings())
        return self.models.get(label, ModelSettings()).over(of_name.over(for_all))

    def pool_limits(self) -> PoolLimits:
        return PoolLimits(Budget(bytes_of(self.memory_budget), self.max_loaded_models))

    def disk_limits(self) -> DiskLimits:
        return self.disk.limits(offline=self.offline)

    def patience(self) -> Patience:
        """After which a worker counts as hung."""
        return Patience(step_s=self.step_timeout_s)


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """One line of `slmops config`. value: as JSON can hold it, a secret masked.

    origin: `flag`, the name of a variable, the path of a file, or `default`.
    """

    name: str
    value: Plain
    origin: str
    description: str


def effective(settings: Settings) -> tuple[EffectiveSetting, ...]:
    """Every setting with its value and where that came from, in the order of their definition."""
    return tuple(
        EffectiveSetting(name, _plain(getattr(settings, name)), settings._origins.get(name, "default"), field.description or "")
        for name, field in Settings.model_fields.items()
    )


def _plain(value: Any) -> Plain:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [str(part) for part in value]
    if isinstance(value, JobSettings | DiskSettings):
        return value.model_dump(mode="json", exclude_none=isinstance(value, DiskSettings))
    if isinstance(value, dict):
        return {name: table.model_dump(mode="json", exclude_none=True) for name, table in value.items()}
    return int(value) if isinstance(value, ByteSize) else value


def _variables() -> dict[str, str]:
    """Setting name -> name of the environment variable that sets it (letter case is free, empty ones do not count)."""
    names = {ENV_PREFIX + name.upper(): name for name in Settings.model_fields}
    return {names[key.upper()]: key for key, value in os.environ.items() if value and key.upper() in names}


def _check_only_in_file(flag: object) -> None:
    """Raises InvalidSettings when a flag or a variable sets what only the file may set."""
    variables = [(key, value) for key, value in os.environ.items() if key.upper() == f"{ENV_PREFIX}JOBS"]
    for place, value in (("flag", flag), *variables):
        if names_what_is_only_in_file(value):
            raise InvalidSettings(
                f"setting 'jobs.{ONLY_IN_FILE}' (from {place}) can be set in {FILE_NAME} only, under [jobs]: "
                "code runs only where the machine's configuration file allows it"
            )


def _explain(problem: ErrorDetails, origins: Mapping[str, str]) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    origin = origins.get(name.split(".")[0], "default")
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {name!r} (from {origin}); {_what_is_known(problem['loc'])}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return f"setting {name!r} (from {origin}) is not usable: {message}"


def _what_is_known(location: tuple[int | str, ...]) -> str:
    """location: of a setting that is not."""
    if len(location) == 1:
        return f"the settings are {', '.join(Settings.model_fields)}"
    if location[0] == "jobs":
        return f"the settings of jobs are {', '.join(JobSettings.model_fields)}"
    if location[0] == "disk":
        return f"the settings of the disk are {', '.join(DiskSettings.model_fields)}"
    if location[0] == "endpoints":
        return f"the settings of an endpoint are {', '.join(EndpointSettings.model_fields)}"
    return f'the settings of a model are {", ".join(ModelSettings.model_fields)}; a name with dots needs quotes: [models."a.b"]'
