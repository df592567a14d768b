"""Starts a declared chain of jobs, whole or not at all. What a chain is, and its order, is `pipelines`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from jobs.job import Job
from jobs.job_queue import JobQueue
from jobs.pipelines import Step, in_order, with_jobs

STEP = "step"  # the key of a job's metadata that names its step


async def start_chain(
    queue: JobQueue, steps: Sequence[Step], metadata: Mapping[str, str] | None = None, *, owner: str | None = None
) -> list[Job]:
    """The jobs of a new pipeline, in order. Raises InvalidJob and the other errors of `JobQueue.create`; then nothing is left."""
    ordered = in_order(steps)
    for step in ordered:
        await queue.check(step.kind, step.params)
    pipeline = f"pipe-{secrets.token_hex(6)}"
    created: dict[str, Job] = {}
    try:
        with queue.plan_slot() as slot:
            for step in ordered:
                ids = {name: job.id for name, job in created.items()}
                created[step.name] = await queue.create(
                    step.kind,
                    with_jobs(step.params, ids),
                    needs=[ids[name] for name in step.after],
                    metadata={**(metadata or {}), STEP: step.name},
                    pipeline=pipeline,
                    slot=slot,
                    owner=owner,
                )
    except BaseException:
        for job in reversed(created.values()):
            await _take_back(queue, job.id)
        raise
    return list(created.values())


async def _take_back(queue: JobQueue, id_: str) -> None:
    if not (await queue.job(id_)).status.is_final:
        await queue.cancel(id_)
    await queue.delete(id_)
