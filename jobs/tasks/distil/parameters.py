"""Params of a distillation, and what each preset of it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.fields import InputFile, VersionName
from jobs.task import Params
from jobs.tasks.evaluate.endpoints import Endpoint

_LABEL: Mapping[str, Any] = {"samples": 1, "temperature": 0.0, "max_tokens": 16, "filters": {"max_chars": 80}}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # open answers: several phrasings, none like another
    "conversation": {"samples": 2, "temperature": 0.7, "max_tokens": 256, "filters": {"min_chars": 8, "near_duplicates": 0.8}},
    # short facts: the answer that most samples give
    "qa": {"samples": 3, "temperature": 0.5, "max_tokens": 64, "filters": {"agreement": 0.5, "max_chars": 400}},
    # one label, greedily
    "classification": _LABEL,
    # whether one sentence follows from another: a label too
    "nli": _LABEL,
    # self-consistency over the last number (https://arxiv.org/abs/2203.11171)
    "math": {"samples": 5, "temperature": 0.7, "max_tokens": 384, "filters": {"agreement": 0.4, "pattern": r"\d"}},
    "summarization": {"samples": 1, "temperature": 0.3, "max_tokens": 200, "filters": {"min_chars": 40, "near_duplicates": 0.7}},
    "tools": {"samples": 1, "temperature": 0.0, "max_tokens": 200, "filters": {}},
}
METRICS: Mapping[str, tuple[str, ...]] = {
    "conversation": ("f1", "chrf"),
    "qa": ("exact_match", "f1"),
    "classification": ("accuracy",),
    "nli": ("accuracy",),
    "math": ("last_number",),
    "summarization": ("rouge_l", "chrf"),
    "tools": ("tool_call_match",),
}


class Cut(BaseModel):
    """A student with the teacher's own weights: so many of its layers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: int = Field(ge=2, description="Number of layers to keep; the first and the last always stay.")


class Logits(BaseModel):
    """The teacher's distributions are learned beside its words; it must be here, with the student's vocabulary."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(0.5, gt=0, le=1, description="Weight of the distributions in the loss.")
    temperature: float = Field(2.0, gt=0, le=100, description="Temperature of both distributions.")


class Filters(BaseModel):
    """agreement: of several samples, keep those whose answer is the most frequent one; compared by their last number if they have
    one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_chars: int = Field(1, ge=0, description="Minimum length of an answer, in characters.")
    max_chars: int | None = Field(None, ge=1, description="Maximum length of an answer, in characters.")
    pattern: str | None = Field(None, description="A regular expression that an answer must contain.")
    is_json: bool = Field(False, description="Answers must be JSON.")
    agreement: float = Field(0.0, ge=0, le=1, description="Share of the samples that must agree; 0 keeps all.")
    near_duplicates: float | None = Field(
        None, gt=0, le=1, description="Jaccard similarity from which an answer counts as a duplicate."
    )
    min_grade: float | None = Field(None, ge=1, le=5, description="Minimum grade of the judge.")


class DistilParams(Params):
    """Trains a smaller model on a larger model's answers."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"teacher": "qwen3-0.6b", "student": "smollm2-135m", "data": "prompts.jsonl", "preset": "qa"}]
        }
    )

    teacher: VersionName | Endpoint = Field(description="A version of the registry, or an endpoint of the configuration.")
    student: VersionName | Cut = Field(description="A smaller model, or how many of the teacher's layers stay.")
    data: InputFile = Field(min_length=1, description="A JSON Lines file of prompts; answers in it are not learned.")
    validation: InputFile | None = Field(None, description="A JSON Lines file with right answers, to compare teacher and student.")
    preset: Literal["conversation", "qa", "nli", "classification", "math", "summarization", "tools"] = Field(
        "conversation", description="What samples, temperature, max_tokens, filters and the figures compared are by default."
    )
    samples: Annotated[int, Field(ge=1, le=64)] | None = Field(None, description="Answers per prompt; by default the preset's.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="Sampling temperature of the answers.")
    max_tokens: Annotated[int, Field(ge=1, le=32_768)] | None = Field(None, description="Maximum length of an answer, in tokens.")
    filters: Filters | None = Field(None, description="Filters of the answers to learn; by default the preset's.")
    judge: VersionName | Endpoint | None = Field(None, description="The model that grades answers, for filters.min_grade.")
    logits: Logits | None = Field(None, description="Learn the teacher's distributions too.")
    training: dict[str, Any] = Field(default_factory=dict, description="Params of finetune, such as epochs or learning_rate.")
    output: str | None = Field(None, description="Name of the student; by default the teacher's with -student.")
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if isinstance(self.teacher, Endpoint) and (self.logits or isinstance(self.student, Cut)):
            raise ValueError("an endpoint returns neither its logits nor its layers: name a teacher of the registry")
        if (self.judge is None) != (self.chosen_filters.min_grade is None):
            raise ValueError("filters.min_grade needs a judge, and a judge a min_grade")
        if self.num_samples > 1 and self.heat == 0:
            raise ValueError("several samples at temperature 0 are all the same")
        return self

    @property
    def chosen_filters(self) -> Filters:
        return self.filters or Filters(**PRESETS[self.preset]["filters"])

    @property
    def num_samples(self) -> int:
        return int(self.samples or PRESETS[self.preset]["samples"])

    @property
    def heat(self) -> float:
        return float(PRESETS[self.preset]["temperature"] if self.temperature is None else self.temperature)

    @property
    def num_tokens(self) -> int:
        return int(self.max_tokens or PRESETS[self.preset]["max_tokens"])
