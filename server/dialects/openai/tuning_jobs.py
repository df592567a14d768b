"""Jobs of kind finetune as OpenAI's fine-tuning jobs, and back. Pure."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jobs.job import Job, JobEvent, JobStatus
from jobs.task import JobKind
from jobs.tasks.finetune.parameters import DPO_RATE, LEARNING_RATES
from model_registry.names import model_name_from
from server.dialects.openai.wire.fine_tuning import (
    Checkpoint,
    CheckpointMetrics,
    DpoHyperparameters,
    FineTuningError,
    FineTuningEvent,
    FineTuningJob,
    FineTuningRequest,
    Method,
    Status,
)
from server.inference.fine_tuned_names import CHECKPOINT, ORGANISATION, registered_name, written_name

_JOB, _OURS = "ftjob-", "job-"
_STATUS: Mapping[JobStatus, Status] = {
    JobStatus.QUEUED: "queued",
    JobStatus.RUNNING: "running",
    JobStatus.INTERRUPTED: "running",
    JobStatus.PAUSED: "paused",
    JobStatus.SUCCEEDED: "succeeded",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}
_LEVELS = {"info": "info", "warning": "warn", "error": "error"}
_EPOCHS, _BATCH = 3, 8
_ALWAYS = frozenset({"model", "data", "output", "objective", "epochs", "batch_size"})
_AT_TIMES = frozenset({"learning_rate", "beta", "validation", "seed"})
COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
_FIGURES = ("loss", "mean_token_accuracy", "eval_loss", "eval_mean_token_accuracy")


def our_id(id_: str) -> str:
    return _OURS + id_.removeprefix(_JOB)


def their_id(id_: str) -> str:
    return _JOB + id_.removeprefix(_OURS)


def params_of(body: FineTuningRequest, base: str, name_id: str) -> dict[str, Any]:
    """base: label of the version to tune; name_id: eight hexadecimal digits, for the name of what is made."""
    method = body.method or Method()
    hyperparameters = body.hyperparameters or method.hyperparameters()
    suffix = model_name_from(body.suffix)[:40].rstrip("._-") if body.suffix else None
    is_dpo = method.type == "dpo"
    params: dict[str, Any] = {
        "model": base,
        "data": body.training_file,
        "output": registered_name(suffix, name_id),
        "objective": method.type,
        "epochs": _EPOCHS if hyperparameters.n_epochs == "auto" else hyperparameters.n_epochs,
        "batch_size": _BATCH if hyperparameters.batch_size == "auto" else hyperparameters.batch_size,
    }
    if hyperparameters.learning_rate_multiplier != "auto":
        params["learning_rate"] = (DPO_RATE if is_dpo else LEARNING_RATES["lora"]) * hyperparameters.learning_rate_multiplier
    if isinstance(hyperparameters, DpoHyperparameters) and hyperparameters.beta != "auto":
        params["beta"] = hyperparameters.beta
    optional = {"validation": body.validation_file, "seed": body.seed}
    return params | {name: value for name, value in optional.items() if value is not None}


def is_representable(job: Job) -> bool:
    """Whether OpenAI's shape can express the job, as one made by `params_of`: jobs of the admin API may have other params."""
    params = job.params
    if job.kind is not JobKind.FINETUNE or not _ALWAYS <= params.keys() <= _ALWAYS | _AT_TIMES:
        return False
    return params["data"].startswith("file-") and params.get("learning_rate") != "auto"


def job_of(job: Job, result_file: str | None) -> FineTuningJob:
    params, outcome, failure = job.params, job.outcome, job.failure
    rate = LEARNING_RATES["lora"] if params["objective"] == "supervised" else DPO_RATE
    hyperparameters = {
        "n_epochs": params["epochs"],
        "batch_size": params["batch_size"],
        "learning_rate_multiplier": params.get("learning_rate", rate) / rate,
    }
    if params["objective"] == "dpo":
        hyperparameters["beta"] = params.get("beta", 0.1)
    finish = None
    if job.status is JobStatus.RUNNING and job.progress.time_left_s is not None:
        finish = int(time.time() + job.progress.time_left_s)
    return FineTuningJob(
        id=their_id(job.id),
        created_at=_seconds(job.created_at) or 0,
        error=FineTuningError(code=failure.code, message=failure.message, param=None) if failure else None,
        fine_tuned_model=model_of(job) if outcome else None,
        finished_at=_seconds(job.ended_at),
        hyperparameters=hyperparameters,
        model=params["model"].partition(":")[0],
        organization_id=ORGANISATION,
        result_files=[result_file] if result_file else [],
        seed=params.get("seed", 0),
        status=_STATUS[job.status],
        trained_tokens=int(outcome.metrics["trained_tokens"]) if outcome else None,
        training_file=params["data"],
        validation_file=params.get("validation"),
        estimated_finish=finish,
        integrations=[],
        metadata=dict(job.metadata),
        method={"type": params["objective"], params["objective"]: {"hyperparameters": hyperparameters}},
    )


def model_of(job: Job) -> str:
    """The name that the tuned model has, or will have."""
    base, registered = job.params["model"].partition(":")[0], job.params["output"]
    return written_name(base, registered) or registered


def event_of(job: Job, event: JobEvent) -> FineTuningEvent:
    metrics = event.data.get("metrics", {}) if event.type == "progress" else {}
    data = {"step": event.data["step"], "total_steps": event.data["total"], **_renamed(metrics)} if metrics else {}
    return FineTuningEvent(
        id=f"ftevent-{event.job.removeprefix(_OURS)}-{event.number}",
        created_at=_seconds(event.at) or 0,
        level=_LEVELS[event.level],  # type: ignore[arg-type]
        message=_message(job, event),
        type="metrics" if metrics else "message",
        data=data,
    )


def _message(job: Job, event: JobEvent) -> str:
    """The event's message in OpenAI's wording, if OpenAI has such an event."""
    if event.type == "progress":
        figures = {"training loss": "loss", "validation loss": "eval_loss"}
        metrics = event.data.get("metrics", {})
        shown = ", ".join(f"{name}={metrics[figure]:.4f}" for name, figure in figures.items() if figure in metrics)
        return f"Step {event.data['step']}/{event.data['total']}" + (f": {shown}" if shown else "")
    match event.data.get("status"):
        case JobStatus.QUEUED if event.number == 1:
            return f"Created fine-tuning job: {their_id(job.id)}"
        case JobStatus.SUCCEEDED:
            return f"New fine-tuned model created: {model_of(job)}. The job has successfully completed"
    return event.message


def checkpoint_of(job: Job, event: JobEvent, before: Mapping[str, float]) -> Checkpoint:
    """before: the newest figures when it was left. The last one of a job that succeeded is the tuned model."""
    step = event.data["step"]
    is_last = job.status is JobStatus.SUCCEEDED and job.plan is not None and step == job.plan.num_steps
    return Checkpoint(
        id=f"ftckpt-{event.job.removeprefix(_OURS)}-{step}",
        created_at=_seconds(event.at) or 0,
        fine_tuned_model_checkpoint=model_of(job) + ("" if is_last else f"{CHECKPOINT}{step}"),
        fine_tuning_job_id=their_id(job.id),
        metrics=CheckpointMetrics(
            step=step,
            train_loss=before.get("loss"),
            train_mean_token_accuracy=before.get("mean_token_accuracy"),
            valid_loss=before.get("eval_loss"),
            valid_mean_token_accuracy=before.get("eval_mean_token_accuracy"),
            full_valid_loss=before.get("eval_loss"),
            full_valid_mean_token_accuracy=before.get("eval_mean_token_accuracy"),
        ),
        step_number=step,
    )


def csv_of(history: Sequence[Mapping[str, float]]) -> bytes:
    """The result file: a line per step, empty where nothing was measured."""
    steps: dict[int, dict[str, float]] = {}
    for entry in history:
        steps.setdefault(int(entry["step"]), {}).update(entry)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for step, entry in sorted(steps.items()):
        writer.writerow([step, *(entry.get(name, "") for name in _FIGURES)])
    return text.getvalue().encode()


def _renamed(metrics: Mapping[str, float]) -> dict[str, float]:
    names = dict(zip(_FIGURES, ("train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy"), strict=True))
    return {names.get(name, name): value for name, value in metrics.items()}


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
