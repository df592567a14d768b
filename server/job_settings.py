"""What may be set for jobs: the table `[jobs]` of slmops.toml, or SLMOPS_JOBS as a JSON object."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict, Field

from jobs.limits import JobLimits
from server.memory_share import MemoryShare, bytes_of
from server.model_settings import Threads


class JobSettings(BaseModel):
    """memory_limit, threads: of each job's process; threads 0: all cores, at a priority below everything else's."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    max_running: int = Field(default=1, ge=0, le=64, description="Jobs that run at a time; 0 starts none.")
    memory_limit: MemoryShare = Field(default="50%", description="Most memory of a job: a share of the machine's, or a size.")
    plan_memory_limit: MemoryShare = Field(default="2GiB", description="Most memory of the process that plans a job.")
    threads: Threads = Field(default=0, description="Threads per job; 0 means all cores.")
    max_attempts: int = Field(default=3, ge=1, le=100, description="Attempts without progress at what may pass by itself.")

    def limits(self, *, offline: bool) -> JobLimits:
        return JobLimits(
            max_running=self.max_running,
            memory_bytes=bytes_of(self.memory_limit),
            plan_memory_bytes=bytes_of(self.plan_memory_limit),
            threads=self.threads,
            max_attempts=self.max_attempts,
            offline=offline,
        )


def from_text(value: object) -> object:
    """A JSON object (from a variable) as the table; other values stay as they are."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise ValueError(f'must be a JSON object such as {{"max_running": 1}} ({error})') from None
