"""The daemon's settings: their names, bounds and defaults, and where each value came from.

Owns the order flags, `SLMOPS_*` variables, `slmops.toml`, defaults. Knows nothing of HTTP or of the command line.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ByteSize, Field, PrivateAttr, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from runtime.messages import EngineOptions

FILE_NAME = "slmops.toml"
ENV_PREFIX = "SLMOPS_"
DEFAULT_HOME = "~/.slmops"
MASK = "********"


class InvalidSettings(ValueError):
    """A setting's value cannot be used; the message names each one, where it came from, and what is allowed."""


def _split(value: object) -> object:
    """A comma-separated text (from a flag or a variable) as its parts; a list stays as it is."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _stripped(value: object) -> object:
    """A text without the space around it, which no header can carry."""
    if isinstance(value, SecretStr):
        return value.get_secret_value().strip()
    return value.strip() if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Key = Annotated[SecretStr, Field(min_length=1), BeforeValidator(_stripped)]
Seconds = Annotated[float, Field(allow_inf_nan=False, ge=0, le=86_400)]


class Settings(BaseSettings):
    """Every setting of the daemon. `Settings(port=9000)` is a flag; a keyword that is None counts as not given.

    Raises InvalidSettings, never pydantic's ValidationError.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    home: Path = Field(Path(DEFAULT_HOME), description="Folder of the registry and the models.", validate_default=True)
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    model: str = Field("smollm2-135m", min_length=1, description="The model that answers when a request names none.")
    engine: Literal["onnx", "fake"] = Field("onnx", description="What runs models; `fake` answers without any model.")
    api_key: Key | None = Field(None, description="Key clients send as `Authorization: Bearer`.")
    allowed_hosts: Names = Field((), description="Host names clients may use beside loopback; `*` allows all.")
    cors_origins: Names = Field((), description="Web origins beside loopback whose pages may use the daemon.")
    max_body_bytes: ByteSize = Field(ByteSize(8 << 20), ge=1024, le=1 << 30, description="Largest request body.")
    request_timeout_s: Seconds = Field(600.0, gt=0, description="Longest time a request may take in its engine.")
    load_timeout_s: Seconds = Field(60.0, gt=0, description="Longest time a request waits for its model to load.")
    shutdown_grace_s: Seconds = Field(30.0, description="Time that running requests get to finish at shutdown.")
    num_slots: int = Field(16, ge=1, le=1024, description="Sequences decoded together, per model.")
    max_waiting: int = Field(256, ge=1, le=1_000_000, description="Sequences queued per model before 429.")
    threads: int = Field(0, ge=0, le=1024, description="Threads per model; 0 means one per physical core.")
    context_length: int | None = Field(None, ge=16, le=1 << 24, description="Cut of the model's context, in tokens.")
    max_token_gap_s: Seconds = Field(0.1, gt=0, description="Longest delay of running rows by a prefill chunk.")
    prefix_cache_bytes: ByteSize = Field(ByteSize(512 << 20), ge=0, le=1 << 50, description="KV kept for prefix reuse.")
    kv_budget_bytes: ByteSize | None = Field(
        None, ge=1 << 20, le=1 << 50, description="Most KV of all rows; unset: half of the free memory."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line to log.")
    log_format: Literal["text", "json"] = Field("text", description="How log lines are written.")
    offline: bool = Field(False, description="Never download anything.")

    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict)

    def __init__(self, **flags: Any) -> None:
        given = {name: value for name, value in flags.items() if value is not None}
        file = _find_file(given)
        content = _read_file(file)
        origins = dict.fromkeys(content, str(file)) | _variables() | dict.fromkeys(given, "flag")
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
        content = _read_file(_find_file(init_settings()))
        return init_settings, env_settings, InitSettingsSource(settings_cls, content)

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    def engine_options(self) -> EngineOptions:
        """What every worker is told about its engine."""
        return EngineOptions(
            num_slots=self.num_slots,
            threads=self.threads,
            context_length=self.context_length,
            max_token_gap_s=self.max_token_gap_s,
            prefix_cache_bytes=int(self.prefix_cache_bytes),
            kv_budget_bytes=None if self.kv_budget_bytes is None else int(self.kv_budget_bytes),
            max_waiting=self.max_waiting,
        )


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """One line of `slmops config`. value: plain (text, number, bool, list, None), a secret masked.

    origin: `flag`, the name of a variable, the path of a file, or `default`.
    """

    name: str
    value: str | int | float | bool | list[str] | None
    origin: str
    description: str


def effective(settings: Settings) -> tuple[EffectiveSetting, ...]:
    """Every setting with its value and where that came from, in the order of their definition."""
    return tuple(
        EffectiveSetting(name, _plain(getattr(settings, name)), settings._origins.get(name, "default"), field.description or "")
        for name, field in Settings.model_fields.items()
    )


def _plain(value: Any) -> str | int | float | bool | list[str] | None:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [str(part) for part in value]
    return int(value) if isinstance(value, ByteSize) else value


def _find_file(given: Mapping[str, Any]) -> Path | None:
    """`slmops.toml` in the current folder, else in the home folder (by flag, by variable, or the default one)."""
    home = given.get("home") or os.environ.get(ENV_PREFIX + "HOME") or DEFAULT_HOME
    for folder in (Path.cwd(), Path(home).expanduser()):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    return None


def _read_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise InvalidSettings(f"{path} cannot be read: {error.strerror}; make it readable or remove it") from None


def _variables() -> dict[str, str]:
    """Setting name -> name of the environment variable that sets it (letter case is free, empty ones do not count)."""
    names = {ENV_PREFIX + name.upper(): name for name in Settings.model_fields}
    return {names[key.upper()]: key for key, value in os.environ.items() if value and key.upper() in names}


def _explain(problem: ErrorDetails, origins: Mapping[str, str]) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    origin = origins.get(name.split(".")[0], "default")
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {name!r} (from {origin}); the settings are {', '.join(Settings.model_fields)}"
    message = problem["msg"][:1].lower() + problem["msg"][1:]
    return f"setting {name!r} (from {origin}) is not usable: {message}"
