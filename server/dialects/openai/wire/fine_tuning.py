"""OpenAI's fine-tuning and file objects (https://platform.openai.com/docs/api-reference/fine-tuning). Knows no job of ours."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from server.admin.job_bodies import Metadata

Purpose = Literal["fine-tune", "evals", "user_data"]


class FileObject(BaseModel):
    """sha256: of its content, which OpenAI's object has not: a client can see by it that the file is there already."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    sha256: str
    status: Literal["processed"] = "processed"


class FileList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


Auto = Literal["auto"]
Epochs = Annotated[int, Field(ge=1, le=50)] | Auto
BatchSize = Annotated[int, Field(ge=1, le=256)] | Auto
Multiplier = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | Auto
Beta = Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] | Auto
Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]


class _RequestBody(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Hyperparameters(_RequestBody):
    n_epochs: Epochs = "auto"
    batch_size: BatchSize = "auto"
    learning_rate_multiplier: Multiplier = "auto"


class DpoHyperparameters(Hyperparameters):
    beta: Beta = "auto"


class Supervised(_RequestBody):
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)


class Dpo(_RequestBody):
    hyperparameters: DpoHyperparameters = Field(default_factory=DpoHyperparameters)


class Method(_RequestBody):
    """type decides which of the two counts; reinforcement is not done here."""

    type: Literal["supervised", "dpo"] = "supervised"
    supervised: Supervised | None = None
    dpo: Dpo | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        other = self.dpo if self.type == "supervised" else self.supervised
        if other is not None:
            raise ValueError(f"type is {self.type}, so give its settings only")
        return self

    def hyperparameters(self) -> Hyperparameters:
        if self.type == "dpo":
            return (self.dpo or Dpo()).hyperparameters
        return (self.supervised or Supervised()).hyperparameters


class FineTuningRequest(_RequestBody):
    """model: any that is here, a tuned one too. hyperparameters: where older clients have them, beside no method."""

    model: str = Field(min_length=1, max_length=300)
    training_file: str = Field(min_length=1, max_length=100)
    validation_file: str | None = Field(None, min_length=1, max_length=100)
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    suffix: str | None = Field(None, min_length=1, max_length=64)
    seed: int | None = Field(None, ge=0, lt=2**32)
    metadata: Metadata | None = None
    integrations: list[Any] | None = Field(None, description="None are here: it may be empty.")

    @field_validator("integrations")
    @classmethod
    def _none(cls, given: list[Any] | None) -> None:
        if given:
            raise ValueError("figures are sent nowhere: leave it out, and read them as events, by TensorBoard or Prometheus")

    @field_validator("hyperparameters")
    @classmethod
    def _one_place(cls, given: Hyperparameters | None, info: ValidationInfo) -> Hyperparameters | None:
        if info.data.get("method") is not None and given is not None:
            raise ValueError("hyperparameters are also in the method; give them in one place")
        return given


class FineTuningError(BaseModel):
    code: str
    message: str
    param: str | None


class FineTuningJob(BaseModel):
    """Times are Unix seconds. status: OpenAI's, with `paused`."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    error: FineTuningError | None
    fine_tuned_model: str | None
    finished_at: int | None
    hyperparameters: dict[str, Any]
    model: str
    organization_id: str
    result_files: list[str]
    seed: int
    status: Status
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    estimated_finish: int | None
    integrations: list[Any]
    metadata: dict[str, str]
    method: dict[str, Any]


class FineTuningJobList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FineTuningJob]
    has_more: bool


class FineTuningEvent(BaseModel):
    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class FineTuningEventList(BaseModel):
    """The newest first."""

    object: Literal["list"] = "list"
    data: list[FineTuningEvent]
    has_more: bool


class CheckpointMetrics(BaseModel):
    step: float
    train_loss: float | None
    train_mean_token_accuracy: float | None
    valid_loss: float | None
    valid_mean_token_accuracy: float | None
    full_valid_loss: float | None
    full_valid_mean_token_accuracy: float | None


class Checkpoint(BaseModel):
    """fine_tuned_model_checkpoint: its name; only the last, the tuned model, can be chatted with."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: CheckpointMetrics
    step_number: int


class CheckpointList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Checkpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool
