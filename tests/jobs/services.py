"""A job service as the composition root builds it, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.permissions import JobLimits
from jobs.service import JobService
from jobs.store import JobStore
from model_registry.database import Database


def job_service(home: Path, limits: JobLimits | None = None, *, tasks: str = "jobs.tasks.kinds", **kwargs: Any) -> JobService:
    return JobService(JobStore(Database(home)), limits, tasks=tasks, **kwargs)
