"""What a quantization may be asked, and which of it goes together."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from jobs.fields import InputFile, VersionName
from jobs.task import Params
from model_registry.conversion.quantizers.recipe import Algorithm, Group

Metric = Literal[
    "exact_match", "accuracy", "f1", "last_number", "json_validity", "tool_call_match", "bleu", "chrf", "rouge_l", "perplexity"
]
_FLOATS = ("fp16", "fp32")


class QuantizeParams(Params):
    """Builds a model with other numbers of bits. auto searches for the fastest build that loses little."""

    model: VersionName = Field(min_length=1, description="The version whose weights are rounded.")
    output: str | None = Field(None, description="Name of the model made; by default the model's with -quantized.")
    precision: Literal["auto", "int8", "int4", "mixed", "fp16", "fp32"] = Field("auto", description="mixed: see int4_layers.")
    int4_layers: list[Group] = Field(default_factory=list, description="For mixed: attention, gate, up, down; others get int8.")
    algorithm: Algorithm | None = Field(None, description="How 4 bits are rounded; by default k-quant, and auto tries awq too.")
    symmetry: Literal["symmetric", "asymmetric"] | None = Field(
        None, description="Blocks with a zero of their own or not; by default rtn's 4 bits have none, everything else has."
    )
    block_size: Literal[16, 32, 64, 128] | None = Field(None, description="Weights per scale; by default 32 for 4 bits, 64 for 8.")
    head_bits: Literal[4, 8, 16, 32] | None = Field(None, description="Of the head and the embedding; by default 8, or a float's.")
    max_quality_loss: float = Field(1.03, ge=1, le=10, description="For auto: perplexity over the source's, at most.")
    calibration: InputFile | None = Field(
        None, min_length=1, description="Training data of a task, for whose examples weights are rounded and measured."
    )
    data: InputFile | None = Field(None, min_length=1, description="Evaluation data: scores before and after, by metrics.")
    metrics: list[Metric] | None = Field(None, min_length=1, description="Of data; by default exact_match and f1.")
    max_tokens: int = Field(256, ge=1, le=32_768, description="Of an answer to a question of data.")
    limit: int | None = Field(None, ge=1, description="Only so many first questions of data.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.precision == "mixed") != bool(self.int4_layers):
            raise ValueError("int4_layers says what is int4 when precision is mixed, and only then")
        if self.precision == "auto" and (self.block_size or self.head_bits or self.symmetry):
            raise ValueError("auto chooses by itself: leave block_size, symmetry and head_bits out")
        has_int4 = self.precision in ("auto", "int4", "mixed") or self.head_bits == 4
        if self.algorithm not in (None, "rtn") and not has_int4:
            raise ValueError(f"{self.algorithm} is for 4 bits: at {self.precision}, the nearest value is as good")
        if self.algorithm in ("gptq", "awq") and self.precision not in ("auto", "int4", "mixed"):
            raise ValueError(f"{self.algorithm} looks at the inputs of layers, and no layer has 4 bits: choose k-quant or rtn")
        if self.precision in _FLOATS and self.head_bits not in (4, 8) and (self.block_size or self.symmetry):
            raise ValueError(f"block_size and symmetry are for integers, and nothing is an integer at {self.precision}")
        if self.data is None and (self.metrics or self.limit):
            raise ValueError("metrics and limit are of data, which is missing")
        return self

    @property
    def chosen_metrics(self) -> tuple[str, ...]:
        return () if self.data is None else tuple(self.metrics or ("exact_match", "f1"))
