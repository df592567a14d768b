"""A declared chain of jobs: steps that name one another become jobs that need one another, whole or not at all.

A step's params refer to the version that another step makes by `@NAME`; `after` orders steps that need nothing of each other.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from jobs.fields import jobs_in, with_jobs
from jobs.job import Job
from jobs.service import JobService
from jobs.task import InvalidJob, JobKind, Problem

STEP = "step"  # the key of a job's metadata that names its step


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    kind: JobKind
    params: Mapping[str, Any]
    after: tuple[str, ...] = field(default=())

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the steps that it follows."""
        return tuple(dict.fromkeys([*jobs_in(self.params), *self.after]))


def in_order(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Each after those that it needs. Raises InvalidJob with everything that is wrong with the chain."""
    by_name = {step.name: step for step in steps}
    problems = [] if steps else [Problem("A pipeline needs at least one step.", param="steps")]
    for index, step in enumerate(steps):
        if by_name[step.name] is not step:
            problems.append(Problem(f"Two steps are named {step.name!r}: rename one.", param=f"steps.{index}.name"))
        problems += [
            Problem(f"Step {step.name!r} needs {need!r}, which is no step; steps are {', '.join(by_name)}.", param=f"steps.{index}")
            for need in step.needs
            if need not in by_name
        ]
    if problems:
        raise InvalidJob(problems)
    try:
        return tuple(by_name[name] for name in TopologicalSorter({step.name: step.needs for step in steps}).static_order())
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise InvalidJob([Problem(f"Steps need one another in a circle: {circle}. Take one need out.", param="steps")]) from None


async def start_chain(
    service: JobService, steps: Sequence[Step], metadata: Mapping[str, str] | None = None, *, owner: str | None = None
) -> list[Job]:
    """The jobs of a new pipeline, in order. Raises InvalidJob and the other errors of `JobService.create`; then nothing is left."""
    ordered = in_order(steps)
    for step in ordered:
        await service.kinds.check(step.kind, step.params)
    pipeline = f"pipe-{secrets.token_hex(6)}"
    created: dict[str, Job] = {}
    try:
        with service.plan_slot() as slot:
            for step in ordered:
                ids = {name: job.id for name, job in created.items()}
                created[step.name] = await service.create(
                    step.kind,
                    with_jobs(step.params, {name: f"@{id_}" for name, id_ in ids.items()}),
                    needs=[ids[name] for name in step.after],
                    metadata={**(metadata or {}), STEP: step.name},
                    pipeline=pipeline,
                    slot=slot,
                    owner=owner,
                )
    except BaseException:
        for job in reversed(created.values()):
            await _withdraw(service, job.id)
        raise
    return list(created.values())


async def _withdraw(service: JobService, id_: str) -> None:
    if not (await service.job(id_)).status.is_final:
        await service.cancel(id_)
    await service.delete(id_)
