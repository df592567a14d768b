"""A declared chain of jobs: steps that name one another become jobs that need one another, whole or not at all.

A step's params refer to the version that another step makes by `@NAME`; `after` orders steps that need nothing of each other.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from jobs.choices import suggestion
from jobs.fields import jobs_in, with_jobs
from jobs.job import NUM_STEPS, STEP, STEP_NUMBER, Job, step_name
from jobs.service import JobService
from jobs.task import InvalidJob, JobFailure, JobKind, Problem


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

    def called(self, number: int) -> str:
        """As messages name it. number: its place, from 1."""
        return step_name(number, self.name, self.kind)


def in_order(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Each after those that it needs, else as they stand. Raises InvalidJob with everything that is wrong with the chain."""
    by_name = {step.name: step for step in steps}
    problems = [] if steps else [Problem("A pipeline needs at least one step.", param="steps")]
    for index, step in enumerate(steps):
        if by_name[step.name] is not step:
            problems.append(Problem(f"Two steps are named {step.name!r}: rename one.", param=f"steps.{index}.name"))
        problems += [
            Problem(f"Step {step.name!r} needs {need!r}, which is no step{_known(need, by_name)}", param=f"steps.{index}")
            for need in step.needs
            if need not in by_name
        ]
    if problems:
        raise InvalidJob(problems)
    return tuple(_sorted(by_name))


def _known(need: str, names: Collection[str]) -> str:
    return suggestion(need, names) or f"; steps are {', '.join(names)}."


def _sorted(by_name: Mapping[str, Step]) -> Iterator[Step]:
    """Raises InvalidJob for a circle."""
    places = list(by_name)
    sorter = TopologicalSorter({step.name: step.needs for step in by_name.values()})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise InvalidJob([Problem(f"Steps need one another in a circle: {circle}. Take one need out.", param="steps")]) from None
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=places.index)
        name = ready.pop(0)
        yield by_name[name]
        sorter.done(name)


async def start_chain(
    service: JobService, steps: Sequence[Step], metadata: Mapping[str, str] | None = None, *, owner: str | None = None
) -> list[Job]:
    """The jobs of a new pipeline, in order. Raises InvalidJob and the other errors of `JobService.create`; then nothing is left."""
    ordered = in_order(steps)
    await _check(service, ordered)
    pipeline = f"pipe-{secrets.token_hex(6)}"
    created: dict[str, Job] = {}
    try:
        with service.plan_slot() as slot:
            for number, step in enumerate(ordered, 1):
                ids = {name: job.id for name, job in created.items()}
                notes = {STEP: step.name, STEP_NUMBER: str(number), NUM_STEPS: str(len(ordered))}
                with _named(step, number):
                    created[step.name] = await service.create(
                        step.kind,
                        with_jobs(step.params, {name: f"@{id_}" for name, id_ in ids.items()}),
                        needs=[ids[name] for name in step.after],
                        metadata={**(metadata or {}), **notes},
                        pipeline=pipeline,
                        slot=slot,
                        owner=owner,
                    )
    except BaseException:
        for job in reversed(created.values()):
            await _withdraw(service, job.id)
        raise
    return list(created.values())


async def _check(service: JobService, steps: Sequence[Step]) -> None:
    """Raises InvalidJob with what is wrong with the params of any step."""
    problems: list[Problem] = []
    for number, step in enumerate(steps, 1):
        try:
            with _named(step, number):
                await service.kinds.check(step.kind, step.params)
        except InvalidJob as error:
            problems += error.problems
    if problems:
        raise InvalidJob(problems)


@contextmanager
def _named(step: Step, number: int) -> Iterator[None]:
    """What is wrong with a step is said of it. Problems keep the names of its params."""
    try:
        yield
    except InvalidJob as error:
        name = step.called(number)
        raise InvalidJob([replace(each, message=f"{name}: {each.message}") for each in error.problems]) from None
    except JobFailure as error:
        raise JobFailure(f"{step.called(number)}: {error.message}", code=error.code, retryable=error.retryable) from error


async def _withdraw(service: JobService, id_: str) -> None:
    if not (await service.job(id_)).status.is_final:
        await service.cancel(id_)
    await service.delete(id_)
