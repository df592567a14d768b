"""The registry of kinds: which module has the task of a kind. Modules are imported when they are first used."""

from __future__ import annotations

from importlib import import_module

from jobs.task import JobKind, Task
from jobs.tasks.vendors.hugging_face import use_no_hub_kernels

_MODULES = {
    JobKind.BENCHMARK: "jobs.tasks.benchmark.task",
    JobKind.CONVERT: "jobs.tasks.convert.task",
    JobKind.DISTIL: "jobs.tasks.distil.task",
    JobKind.EVALUATE: "jobs.tasks.evaluate.task",
    JobKind.FINETUNE: "jobs.tasks.finetune.task",
    JobKind.FOUNDRY_EXPORT: "jobs.tasks.foundry_export",
    JobKind.MERGE: "jobs.tasks.merge",
    JobKind.OLIVE: "jobs.tasks.olive.task",
    JobKind.PULL: "jobs.tasks.pull",
    JobKind.QUANTIZE: "jobs.tasks.quantize.task",
    JobKind.REGISTER: "jobs.tasks.register",
    JobKind.SEARCH: "jobs.tasks.search.task",
}


def task_for(kind: JobKind) -> Task:
    """The one task of this kind: its module's `TASK`."""
    task: Task = import_module(_MODULES[kind]).TASK
    return task


def prepare_process() -> None:
    """Called once in a job's process, before anything is loaded that tasks work with."""
    use_no_hub_kernels()
