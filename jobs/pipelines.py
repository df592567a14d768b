"""A declared chain of jobs: steps that name one another become jobs that need one another. Pure.

A step's params refer to the version that another step makes by `@NAME`; `after` orders steps that need nothing of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from jobs.job import InvalidJob, JobKind, Problem
from jobs.references import jobs_in, resolved


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


def with_jobs(params: Mapping[str, Any], ids: Mapping[str, str]) -> dict[str, Any]:
    """The params with jobs' ids in place of steps' names. ids: by name of the step."""
    named: dict[str, Any] = resolved(params, lambda name: f"@{ids[name]}")
    return named
