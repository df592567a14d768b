"""Params of a tuning. Names are those of TRL and PEFT where they have one."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from jobs.fields import InputFile, VersionName
from jobs.task import Params
from model_registry.records import Precision

Positive = Annotated[int, Field(ge=1)]
LEARNING_RATES = {"full": 2e-5, "lora": 2e-4, "dora": 2e-4, "qlora": 2e-4}
DPO_RATE = 5e-6


class Method(StrEnum):
    """What is learned: all weights, or low-rank changes of them (https://arxiv.org/abs/2106.09685, 2402.09353, 2305.14314)."""

    FULL = "full"
    LORA = "lora"
    DORA = "dora"
    QLORA = "qlora"  # LoRA on a base whose matrices are held in 4 bits meanwhile


class Backend(StrEnum):
    """Whose code trains. Data, registration and lineage are ours with either."""

    TRL = "trl"
    OLIVE = "olive"


class FinetuneParams(Params):
    """Fine-tunes a model on conversations, pairs of texts, or preferences."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "smollm2-135m", "data": "train.jsonl", "epochs": 3, "output": "my-model"}]}
    )

    model: VersionName = Field(min_length=1, description="The version to begin from: a name, name:number or name:alias.")
    data: InputFile = Field(min_length=1, description="The id of an uploaded JSON Lines file, or its path in jobs.data_roots.")
    validation: InputFile | None = Field(None, description="A JSON Lines file for the validation loss.")
    output: str | None = Field(None, description="Name of the model made; by default the base's with -tuned.")
    method: Method = Field(Method.LORA, description="full, lora, dora, or qlora: lora on a base in 4 bits.")
    backend: Backend = Field(Backend.TRL, description="trl, or olive: Olive's fine-tuning pass, with fewer settings.")
    objective: Literal["supervised", "dpo"] = Field(
        "supervised", description="supervised: learn answers; dpo: learn to prefer one of two."
    )
    text_template: str | None = Field(None, description="For data with other columns: `{name}` stands for a column's text.")
    epochs: Annotated[float, Field(gt=0, le=1000)] = Field(3.0, description="Passes over the data.")
    max_steps: Positive | None = Field(None, description="Maximum number of steps.")
    batch_size: Positive = Field(8, le=1024, description="Examples per batch.")
    gradient_accumulation: Positive = Field(1, le=1024, description="Batches per step.")
    learning_rate: float | Literal["auto"] = Field("auto", description="auto: 2e-4 for LoRA, 2e-5 for full, 5e-6 for dpo.")
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "cosine", description="Learning rate schedule."
    )
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="Weight decay of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    max_length: Positive | None = Field(
        None, description="Maximum length of an example, in tokens; by default the context. Longer ones are refused."
    )
    packing: bool = Field(False, description="Short examples share rows of max_length tokens, without seeing each other.")
    rank: Positive = Field(16, le=512, description="Rank of the LoRA matrices.")
    alpha: Positive | None = Field(None, description="LoRA's scale; by default twice the rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of the LoRA layers.")
    targets: Literal["all-linear"] | list[str] = Field("all-linear", description="Modules that get LoRA matrices.")
    beta: float = Field(0.1, gt=0, description="DPO's beta: the larger, the closer the model stays to its base.")
    gradient_checkpointing: bool = Field(False, description="Saves memory, takes a third more time.")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="Precision of the training; auto: bf16 where the CPU supports it."
    )
    early_stopping: Positive | None = Field(None, description="Stop after this many evaluations without a better loss.")
    evaluate_every: Positive | None = Field(None, description="Steps between evaluations; by default once per epoch.")
    checkpoint_every: Positive = Field(50, description="Steps between checkpoints.")
    loss: str | None = Field(None, description="A custom loss: its name among the entry points `slmops.losses`.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the data's order, dropout and new weights.")
    served_precision: Precision = Field(Precision.AUTO, description="Precision of the build that is served.")

    @model_validator(mode="after")
    def _olive_can(self) -> Self:
        if self.backend is Backend.OLIVE:
            lacking = {
                "method full": self.method is Method.FULL,
                "objective dpo": self.objective == "dpo",
                "packing": self.packing,
                "loss": self.loss is not None,
                "early_stopping": self.early_stopping is not None,
                "targets with qlora": self.method is Method.QLORA and self.targets != "all-linear",
            }
            if wrong := [name for name, is_requested in lacking.items() if is_requested]:
                raise ValueError(f"backend olive has no {' and no '.join(wrong)}: leave it out, or choose backend trl")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.early_stopping and not self.validation:
            raise ValueError("early_stopping needs validation, whose loss it looks at")
        if self.objective == "dpo" and self.text_template:
            raise ValueError("text_template is for supervised tuning; preferences have columns of their own")
        if self.objective == "dpo" and self.loss:
            raise ValueError("a custom loss is for supervised tuning; dpo has its own")
        if self.objective == "dpo" and self.packing:
            raise ValueError("packing is for supervised tuning; dpo compares whole answers")
        if self.packing and self.max_length is None:
            raise ValueError("packing needs max_length: the tokens of a row, as 512")
        if "lm_head" in self.targets:
            raise ValueError("targets cannot have lm_head: adapters change the layers, not the head")
        if isinstance(self.learning_rate, float) and not 0 < self.learning_rate <= 1:
            raise ValueError("learning_rate must be above 0 and at most 1")
        return self

    @property
    def rate(self) -> float:
        if isinstance(self.learning_rate, float):
            return self.learning_rate
        return DPO_RATE if self.objective == "dpo" else LEARNING_RATES[self.method]
