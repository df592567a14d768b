"""The JSON bodies of requests for jobs and of their answers. Times are Unix seconds; figures that are no number are null."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from jobs.job import Job, JobEvent, JobStatus
from jobs.task import JobKind, Plan
from model_registry.description import finite
from server.http.body_errors import FAIL_FAST, at_most
from server.inference.fine_tuned_names import as_registered

Figures = dict[str, float | None]
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    at_most(16),
    Field(max_length=16, description="The owner's own texts: 16 at most, keys up to 64 and values up to 512 characters."),
]
Params = Annotated[
    dict[str, Any],
    AfterValidator(as_registered),
    Field(description="See `/admin/job-kinds`; `@ID` stands for the version that another job makes, `file-...` for a file."),
]


def _named(kind: object) -> object:
    return JobKind.named(kind) if isinstance(kind, str) else kind


NamedKind = Annotated[JobKind, BeforeValidator(_named)]  # in any case, with or without dashes; refused with what was meant


class JobRequest(BaseModel):
    """needs: jobs that must have succeeded before; those that the params refer to need not be named."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    kind: NamedKind
    params: Params = Field(default_factory=dict)
    needs: Annotated[list[str], FAIL_FAST] = Field(default_factory=list, max_length=100)
    metadata: Metadata = Field(default_factory=dict)


class PlanRequest(BaseModel):
    """A job that is only thought of."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    kind: NamedKind
    params: Params = Field(default_factory=dict)


class PlanBody(BaseModel):
    """What a job would do, a sentence each; the figures are estimates, null when unknown. outputs: models it would register.

    stages: that it goes through, in order. disk_bytes: on the way, downloads included; download_bytes: of these, what is fetched.
    """

    summary: list[str]
    num_steps: int | None
    duration_s: float | None
    memory_bytes: int | None
    disk_bytes: int | None
    outputs: list[str]
    warnings: list[str]
    stages: list[str] = Field(default_factory=list)
    download_bytes: int | None = None


class ProgressBody(BaseModel):
    """step of total, in `unit`; rate: steps a second. metrics: the newest of each, e.g. loss.

    stage_number of num_stages: which of its stages is going on, from 1; null where they are not known before.
    """

    stage: str
    step: int
    total: int | None
    unit: str
    rate: float | None
    time_left_s: float | None
    metrics: Figures
    stage_number: int | None = None
    num_stages: int | None = None


class OutcomeBody(BaseModel):
    """version: what was registered, as `name:number`. files: in the job's folder, relative."""

    version: str | None
    metrics: Figures
    files: list[str]
    details: dict[str, Any]


class FailureBody(BaseModel):
    """code: for programs, e.g. `out_of_memory`."""

    code: str
    message: str


class JobBody(BaseModel):
    """A job as it is now. attempt: how often it was started. folder: where it keeps its files on the daemon's machine.

    owner: id of the key that created it; `local` for a program of this machine, while there were no keys.
    """

    id: str
    object: Literal["job"] = "job"
    kind: JobKind
    status: JobStatus
    params: dict[str, Any]
    needs: list[str]
    pipeline: str | None
    metadata: dict[str, str]
    attempt: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    progress: ProgressBody
    plan: PlanBody | None
    outcome: OutcomeBody | None
    failure: FailureBody | None
    folder: str
    owner: str | None


class JobList(BaseModel):
    """Newest first. has_more: request the next page with `after` set to the last one's id."""

    object: Literal["list"] = "list"
    data: list[JobBody]
    has_more: bool


class EventBody(BaseModel):
    """number: from 1, ascending within the job. type: status, stage, progress, message or checkpoint."""

    number: int
    at: float
    type: str
    level: str
    message: str
    data: dict[str, Any]


class EventList(BaseModel):
    object: Literal["list"] = "list"
    data: list[EventBody]


class KindBody(BaseModel):
    """params: the JSON Schema of such a job's params."""

    kind: JobKind
    params: dict[str, Any]


class KindList(BaseModel):
    object: Literal["list"] = "list"
    data: list[KindBody]


class Deleted(BaseModel):
    id: str
    deleted: Literal[True] = True


def plan_body(plan: Plan) -> PlanBody:
    return PlanBody(
        summary=list(plan.summary),
        num_steps=plan.num_steps,
        duration_s=plan.duration_s,
        memory_bytes=plan.memory_bytes,
        disk_bytes=plan.disk_bytes,
        outputs=list(plan.outputs),
        warnings=list(plan.warnings),
        stages=list(plan.stages),
        download_bytes=plan.download_bytes,
    )


def job_body(job: Job, folder: str) -> JobBody:
    progress, outcome, failure = job.progress, job.outcome, job.failure
    return JobBody(
        id=job.id,
        kind=job.kind,
        status=job.status,
        params=finite(job.params),
        needs=list(job.needs),
        pipeline=job.pipeline,
        metadata=dict(job.metadata),
        attempt=job.attempt,
        created_at=job.created_at.timestamp(),
        started_at=_seconds(job.started_at),
        ended_at=_seconds(job.ended_at),
        progress=ProgressBody(
            stage=progress.stage,
            step=progress.step,
            total=progress.total,
            unit=progress.unit,
            rate=progress.rate,
            time_left_s=progress.time_left_s,
            metrics=finite(progress.metrics),
            stage_number=progress.stage_number,
            num_stages=progress.num_stages,
        ),
        plan=plan_body(job.plan) if job.plan else None,
        outcome=OutcomeBody(
            version=outcome.version,
            metrics=finite(outcome.metrics),
            files=list(outcome.files),
            details=finite(outcome.details),
        )
        if outcome
        else None,
        failure=FailureBody(code=failure.code, message=failure.message) if failure else None,
        folder=folder,
        owner=job.owner,
    )


def event_body(event: JobEvent) -> EventBody:
    return EventBody(
        number=event.number,
        at=event.at.timestamp(),
        type=event.type,
        level=event.level,
        message=event.message,
        data=finite(event.data),
    )


def _seconds(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()
