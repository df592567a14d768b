"""What a distillation may be asked."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.fields import InputFile
from jobs.task import Params
from jobs.tasks.distil.filters import Filters
from jobs.tasks.distil.presets import PRESETS
from jobs.tasks.evaluate.endpoints import Endpoint


class Cut(BaseModel):
    """A student with the teacher's own weights: so many of its layers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: int = Field(ge=2, description="Layers that stay; the first and the last always do.")


class Logits(BaseModel):
    """The teacher's distributions are learned beside its words; it must be here, with the student's vocabulary."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(0.5, gt=0, le=1, description="Their part in the loss.")
    temperature: float = Field(2.0, gt=0, le=100, description="Of both distributions.")


class DistilParams(Params):
    """Teaches a smaller model by a larger one's answers."""

    teacher: str | Endpoint = Field(description="A version of the registry, or an endpoint of the configuration.")
    student: str | Cut = Field(description="A smaller model, or how many of the teacher's layers stay.")
    data: InputFile = Field(min_length=1, description="A JSON Lines file of prompts; answers in it are not learned.")
    validation: InputFile | None = Field(None, description="Such a file with right answers, to compare them all.")
    preset: Literal["conversation", "qa", "nli", "classification", "math", "summarization", "tools"] = Field(
        "conversation", description="What samples, temperature, max_tokens, filters and the figures compared are by default."
    )
    samples: Annotated[int, Field(ge=1, le=64)] | None = Field(None, description="Answers per prompt; by default the preset's.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="Of the answers.")
    max_tokens: Annotated[int, Field(ge=1, le=32_768)] | None = Field(None, description="Of an answer.")
    filters: Filters | None = Field(None, description="Which answers are learned; by default the preset's.")
    judge: str | Endpoint | None = Field(None, description="Who grades answers, for filters.min_grade.")
    logits: Logits | None = Field(None, description="Learn the teacher's distributions too.")
    training: dict[str, Any] = Field(default_factory=dict, description="Params of finetune, as epochs or learning_rate.")
    output: str | None = Field(None, description="Name of the student; by default the teacher's with -student.")
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if isinstance(self.teacher, Endpoint) and (self.logits or isinstance(self.student, Cut)):
            raise ValueError("an endpoint tells neither its logits nor its layers: name a teacher of the registry")
        if (self.judge is None) != (self.wish.min_grade is None):
            raise ValueError("filters.min_grade needs a judge, and a judge a min_grade")
        if self.num_samples > 1 and self.heat == 0:
            raise ValueError("several samples at temperature 0 are all the same")
        return self

    @property
    def wish(self) -> Filters:
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
