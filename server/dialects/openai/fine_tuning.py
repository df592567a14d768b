"""`/v1/fine_tuning/jobs`: OpenAI's way to tune a model, on our jobs of kind finetune."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request

from jobs.job import WORK, Job, JobEvent, JobNotFound, JobStatus, WrongStatus
from jobs.service import JobService
from jobs.task import InvalidJob, JobKind, Problem
from model_registry.uploads import FileNotKnown, FileStore
from server.dialects.openai.errors import InvalidParam
from server.dialects.openai.tuning_jobs import (
    checkpoint_of,
    csv_of,
    event_of,
    is_representable,
    job_of,
    our_id,
    params_of,
    their_id,
)
from server.dialects.openai.wire.errors import documented
from server.dialects.openai.wire.fine_tuning import (
    Checkpoint,
    CheckpointList,
    FineTuningEventList,
    FineTuningJob,
    FineTuningJobList,
    FineTuningRequest,
)
from server.http.access import CallerPrincipal, requires
from server.http.disconnection import unless_disconnected
from server.http.json_route import SmallJsonRoute
from server.inference.gateway import Gateway
from server.principal import AccessScope, Principal

_PARAMS = {"data": "training_file", "validation": "validation_file", "learning_rate": "hyperparameters"}
_RESULT = "result_file"  # where a job's folder notes the id of its result file
Limit = Annotated[int, Query(ge=1, le=100)]


def fine_tuning_router(gateway: Gateway, service: JobService, uploads: FileStore) -> APIRouter:
    router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["openai"], route_class=SmallJsonRoute)

    async def job_object(job: Job) -> FineTuningJob:
        return job_of(job, await asyncio.to_thread(_result_file, service.folder(job.id), job, uploads))

    async def found(id_: str, caller: Principal) -> Job:
        try:
            job = await service.job(our_id(id_), owner=caller.only_own)
        except JobNotFound:
            job = None
        if job is None or not is_representable(job):
            raise JobNotFound(f"There is no fine-tuning job {id_!r} here.")
        return job

    async def moved(id_: str, caller: Principal, move: Callable[[str], Awaitable[Job]]) -> FineTuningJob:
        job = await found(id_, caller)
        try:
            return await job_object(await move(job.id))
        except WrongStatus as error:
            raise WrongStatus(error.message.replace(job.id, their_id(job.id))) from None

    @router.post("", responses=documented(400, 404, 413, 422, 429, 500, 503), summary="Tune a model")
    @requires(AccessScope.JOBS, changes_state=True)
    async def create(submitted: FineTuningRequest, request: Request, caller: CallerPrincipal) -> FineTuningJob:
        """Its data is checked first: an error names its line, and no job is created."""
        base = (await gateway.resolve(submitted.model)).label
        if submitted.validation_file == submitted.training_file:
            message = "It is the training_file too: validation must be new to the model."
            raise InvalidParam(message, param="validation_file")
        for field in ("training_file", "validation_file"):
            await asyncio.to_thread(_check_file, uploads, field, getattr(submitted, field), caller.only_own)
        params = params_of(submitted, base, secrets.token_hex(4))
        try:
            creating = service.create(JobKind.FINETUNE, params, metadata=submitted.metadata or {}, owner=caller.id)
            job = await unless_disconnected(request.receive, creating)
        except InvalidJob as error:
            raise InvalidJob([_theirs(problem, submitted) for problem in error.problems]) from None
        return await job_object(job)

    @router.get("", responses=documented(400, 404, 500), summary="List the fine-tuning jobs")
    @requires(AccessScope.JOBS, changes_state=False)
    async def list_jobs(
        request: Request, caller: CallerPrincipal, limit: Limit = 20, after: str | None = None
    ) -> FineTuningJobList:
        """The newest first. `metadata[KEY]=VALUE` in the query: only jobs that have it; `metadata=null`: only those without any."""
        is_plain = request.query_params.get("metadata") == "null"
        wanted = {name[9:-1]: value for name, value in request.query_params.items() if name.startswith("metadata[")}
        if after is not None:
            await found(after, caller)
        owner = caller.only_own
        jobs: list[Job] = []
        cursor = None if after is None else our_id(after)
        while len(jobs) <= limit and (page := await service.find(kind=JobKind.FINETUNE, owner=owner, after=cursor)):
            representable = [job for job in page if is_representable(job) and not (is_plain and job.metadata)]
            jobs += [job for job in representable if wanted.items() <= job.metadata.items()]
            cursor = page[-1].id
        return FineTuningJobList(data=[await job_object(job) for job in jobs[:limit]], has_more=len(jobs) > limit)

    @router.get("/{job_id}", responses=documented(404, 500), summary="Describe a fine-tuning job")
    @requires(AccessScope.JOBS, changes_state=False)
    async def retrieve(job_id: str, caller: CallerPrincipal) -> FineTuningJob:
        return await job_object(await found(job_id, caller))

    @router.post("/{job_id}/cancel", responses=documented(404, 409, 500), summary="Cancel a fine-tuning job")
    @requires(AccessScope.JOBS, changes_state=True)
    async def cancel(job_id: str, caller: CallerPrincipal) -> FineTuningJob:
        return await moved(job_id, caller, service.cancel)

    @router.post("/{job_id}/pause", responses=documented(404, 409, 500), summary="Pause a fine-tuning job")
    @requires(AccessScope.JOBS, changes_state=True)
    async def pause(job_id: str, caller: CallerPrincipal) -> FineTuningJob:
        return await moved(job_id, caller, service.pause)

    @router.post("/{job_id}/resume", responses=documented(404, 409, 500), summary="Resume a fine-tuning job")
    @requires(AccessScope.JOBS, changes_state=True)
    async def resume(job_id: str, caller: CallerPrincipal) -> FineTuningJob:
        return await moved(job_id, caller, service.resume)

    @router.get("/{job_id}/events", responses=documented(400, 404, 500), summary="List what happened to a fine-tuning job")
    @requires(AccessScope.JOBS, changes_state=False)
    async def events(job_id: str, caller: CallerPrincipal, limit: Limit = 20, after: str | None = None) -> FineTuningEventList:
        """The newest first."""
        job = await found(job_id, caller)
        whole = [event_of(job, event) for event in reversed(await _events(service, job.id))]
        ids = [event.id for event in whole]
        if after is not None and after not in ids:
            raise JobNotFound(f"The job {job_id} has no event {after!r}.")
        whole = whole if after is None else whole[ids.index(after) + 1 :]
        return FineTuningEventList(data=whole[:limit], has_more=len(whole) > limit)

    @router.get("/{job_id}/checkpoints", responses=documented(400, 404, 500), summary="List a fine-tuning job's checkpoints")
    @requires(AccessScope.JOBS, changes_state=False)
    async def checkpoints(job_id: str, caller: CallerPrincipal, limit: Limit = 10, after: str | None = None) -> CheckpointList:
        """The newest first."""
        job = await found(job_id, caller)
        known: dict[str, float] = {}
        whole: list[Checkpoint] = []
        for event in await _events(service, job.id):
            known |= event.data.get("metrics", {}) if event.type == "progress" else {}
            if event.type == "checkpoint":
                whole.insert(0, checkpoint_of(job, event, known))
        ids = [each.id for each in whole]
        if after is not None and after not in ids:
            raise JobNotFound(f"The job {job_id} has no checkpoint {after!r}.")
        whole = whole if after is None else whole[ids.index(after) + 1 :]
        page = whole[:limit]
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        return CheckpointList(data=page, first_id=first, last_id=last, has_more=len(whole) > limit)

    return router


def _check_file(uploads: FileStore, field: str, id_: str | None, owner: str | None) -> None:
    """Raises InvalidParam when it is not here, is another's, or is for something else."""
    if id_ is None:
        return
    try:
        purpose = uploads.get(id_, owner).purpose
    except FileNotKnown as error:
        raise InvalidParam(error.message, param=field, code="file_not_found") from None
    if purpose != "fine-tune":
        raise InvalidParam(f"The file {id_} is for {purpose}. Upload it with purpose fine-tune.", param=field)


async def _events(service: JobService, id_: str) -> list[JobEvent]:
    """Leaves out progress without figures, which OpenAI's API does not have."""
    found = [event async for event in service.events(id_) if event is not None]
    return [event for event in found if event.type != "progress" or event.data["metrics"]]


def _theirs(problem: Problem, body: FineTuningRequest) -> Problem:
    """The problem under the name that the field has here, and the file under its id."""
    param = _PARAMS.get(problem.param or "", problem.param)
    for field in ("training_file", "validation_file"):
        if problem.file is not None and f"/{getattr(body, field)}/" in problem.file:
            return Problem(problem.message, field, getattr(body, field), problem.line, problem.code)
    return Problem(problem.message, param, problem.file, problem.line, problem.code)


def _result_file(folder: Path, job: Job, uploads: FileStore) -> str | None:
    """Built on first use; None before the job has succeeded."""
    if job.status is not JobStatus.SUCCEEDED:
        return None
    note, history = folder / _RESULT, folder / WORK / "training.json"
    if not note.exists() and history.exists():
        content = io.BytesIO(csv_of(json.loads(history.read_text())))
        stored = uploads.add(content, "step_metrics.csv", "fine-tune-results", owner=job.owner)
        note.write_text(stored.id)
    return note.read_text() if note.exists() else None
