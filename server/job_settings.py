"""What may be set for jobs: the table `[jobs]` of slmops.toml, or SLMOPS_JOBS as a JSON object.

`allow_code` stands in the file alone: whoever can set a variable of one process must not open the machine to code by it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from jobs.permissions import EndpointSource, JobLimits, JobPermissions
from server.memory_share import MemoryShare, bytes_of
from server.model_settings import Threads

ONLY_IN_FILE = "allow_code"


class JobSettings(BaseModel):
    """memory_limit, threads: of each job's process; threads 0: all cores, at a priority below everything else's."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    max_running: int = Field(default=1, ge=0, le=64, description="Jobs that run at a time; 0 starts none.")
    memory_limit: MemoryShare = Field(default="50%", description="Most memory of a job: a share of the machine's, or a size.")
    plan_memory_limit: MemoryShare = Field(default="2GiB", description="Most memory of the process that plans a job.")
    threads: Threads = Field(default=0, description="Threads per job; 0 means all cores.")
    max_attempts: int = Field(default=3, ge=1, le=100, description="Attempts without progress at what may pass by itself.")
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

    def limits(self, *, offline: bool) -> JobLimits:
        return JobLimits(
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
