"""Which task does which kind of job. Modules are imported when they are asked for."""

from __future__ import annotations

from importlib import import_module

from jobs.job import JobKind
from jobs.tasks.protocol import Task

_MODULES = {kind: f"jobs.tasks.{kind.name.lower()}" for kind in JobKind}


def task_for(kind: JobKind) -> Task:
    """The one task of this kind: its module's `TASK`."""
    task: Task = import_module(_MODULES[kind]).TASK
    return task
