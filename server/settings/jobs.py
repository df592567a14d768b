"""What may be set for jobs: the tables `[jobs]` and `[endpoints.NAME]` of slmops.toml.

The variables SLMOPS_JOBS and SLMOPS_ENDPOINTS have the same as JSON objects. `allow_code` stands in the file alone: a variable of
one process must not open the machine to code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from jobs.permissions import EndpointSource, JobLimits, JobPermissions
from model_registry.disk_space.limits import NO_LIMITS, DiskLimits
from server.settings.models import Threads
from server.settings.units import MemoryShare, bytes_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class EndpointSettings(BaseModel):
    """A server that speaks OpenAI's API. Its key is in a variable or a file, never here."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str = Field(description="Its address, up to and with /v1.")
    key_env: str | None = Field(None, min_length=1, description="The daemon's variable that holds its key.")
    key_file: Path | None = Field(None, description="The file that holds its key.")
    private: bool = Field(False, description="Whether its name may mean an address of this machine or its network.")

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"is no address ({error})") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ValueError("must be an address such as https://host/v1")
        if "@" in parts.netloc:
            raise ValueError("must hold no user and password: name the key's variable in key_env, or its file in key_file")
        if parts.query or parts.fragment:
            raise ValueError("must end with its path, without ? and #")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.key_env is not None and self.key_file is not None:
            raise ValueError("takes key_env or key_file, not both")
        return self

    def source(self) -> EndpointSource:
        return EndpointSource(self.url, self.key_env, self.key_file, self.private)


def _tables(value: object) -> object:
    """A JSON object (from a variable) as the tables; other values stay as they are."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise ValueError(f'must be a JSON object such as {{"NAME": {{"url": "https://host/v1"}}}} ({error})') from None
    if isinstance(value, dict) and (wrong := [name for name in value if not _NAME.fullmatch(str(name))]):
        raise ValueError(f"{wrong[0]!r} is no endpoint's name: use letters, digits, dots, dashes and underscores")
    return value


EndpointTables = Annotated[dict[str, EndpointSettings], NoDecode, BeforeValidator(_tables)]


ONLY_IN_FILE = "allow_code"


class JobSettings(BaseModel):
    """memory_limit, threads: of each job's process; threads 0: all cores, at a priority below everything else's."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    max_running: int = Field(default=1, ge=0, le=64, description="Jobs that run at a time; 0 starts none.")
    memory_limit: MemoryShare = Field(default="50%", description="Most memory of a job: a share of the machine's, or a size.")
    plan_memory_limit: MemoryShare = Field(default="2GiB", description="Most memory of the process that plans a job.")
    threads: Threads = Field(default=0, description="Threads per job; 0 means all cores.")
    max_attempts: int = Field(default=3, ge=1, le=100, description="Attempts without progress after retryable failures.")
    allow_code: bool = Field(default=False, description="Whether code that arrives as data may run; only in slmops.toml.")
    data_roots: tuple[Path, ...] = Field(default=(), max_length=100, description="Folders whose files jobs may read by path.")
    output_roots: tuple[Path, ...] = Field(default=(), max_length=100, description="Folders that jobs may write in.")

    @field_validator("data_roots", "output_roots")
    @classmethod
    def _whole(cls, roots: tuple[Path, ...]) -> tuple[Path, ...]:
        whole = tuple(root.expanduser() for root in roots)
        if wrong := [root for root in whole if not root.is_absolute()]:
            raise ValueError(f"{wrong[0]} must be a whole path, from the root")
        return whole

    def limits(self, *, offline: bool, disk: DiskLimits = NO_LIMITS) -> JobLimits:
        return JobLimits(
            disk=disk,
            max_running=self.max_running,
            memory_bytes=bytes_of(self.memory_limit),
            plan_memory_bytes=bytes_of(self.plan_memory_limit),
            threads=self.threads,
            max_attempts=self.max_attempts,
            offline=offline,
        )

    def permissions(self, endpoints: Mapping[str, EndpointSource]) -> JobPermissions:
        """endpoints: of the configuration, by name."""
        return JobPermissions(self.allow_code, self.data_roots, self.output_roots, endpoints)


def from_text(value: object) -> object:
    """A JSON object (from a variable) as the table; other values stay as they are."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise ValueError(f'must be a JSON object such as {{"max_running": 1}} ({error})') from None


def names_what_is_only_in_file(value: object) -> bool:
    """Whether a table of a flag or a variable sets what only the file may set. A text that is no JSON sets nothing."""
    if isinstance(value, JobSettings):
        return ONLY_IN_FILE in value.model_fields_set
    try:
        table = from_text(value)
    except ValueError:
        return False
    return isinstance(table, dict) and ONLY_IN_FILE in table
