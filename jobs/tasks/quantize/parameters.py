"""The parameters of a quantization, which of them go together, and which builds to make and to choose. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from jobs.fields import InputFile, VersionName
from jobs.task import Params
from model_registry.conversion.quantizers.recipe import FLOAT_BITS, GROUPS, HALF_BITS, Algorithm, Group, Recipe, plain_recipe


@dataclass(frozen=True, slots=True)
class Candidate:
    """A build: its name, unique among those of a job, and how its matrices are rounded."""

    name: str
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class BuildResult:
    """The measurements of one build. ratio: its perplexity over the source's. tokens_per_s: for one client and for eight."""

    name: str
    ratio: float
    size_bytes: int
    tokens_per_s: tuple[float, float]

    def speed(self, other: BuildResult) -> float:
        """How many times as fast as the other: the geometric mean over one client and eight."""
        one, eight = (mine / theirs for mine, theirs in zip(self.tokens_per_s, other.tokens_per_s, strict=True))
        return float((one * eight) ** 0.5)


def requested_candidate(
    precision: str,
    int4: Collection[Group],
    num_layers: int,
    *,
    algorithm: Algorithm | None = None,
    head_bits: int | None = None,
    block_size: int | None = None,
    is_symmetric: bool | None = None,
) -> Candidate:
    """The one build of a precision that is not auto. int4: the groups at 4 bits when that is `mixed`."""
    widths = {"int8": 8, "int4": 4, "mixed": 4, "fp16": HALF_BITS, "fp32": FLOAT_BITS}
    bits = widths[precision]
    head = head_bits or max(bits, 8)
    kept = [name for group, names in GROUPS.items() if group not in int4 for name in names] if precision == "mixed" else []
    chosen = algorithm or ("k-quant" if 4 in (bits, head) else "rtn")
    words = [precision, *(f"{group}4" for group in GROUPS if precision == "mixed" and group in int4)]
    words += [chosen] if 4 in (bits, head) else []
    words += [f"b{block_size}"] if block_size else []
    words += [] if is_symmetric is None else ["symmetric" if is_symmetric else "asymmetric"]
    words += [f"head{head}"] if head != max(bits, 8) else []
    exceptions = [f"blk.{layer}.{name}" for layer in range(num_layers) for name in kept]
    recipe = plain_recipe(chosen, bits, head, exceptions=exceptions, block_size=block_size, is_symmetric=is_symmetric)
    return Candidate("-".join(words), recipe)


def choose(results: Sequence[BuildResult], max_ratio: float) -> tuple[BuildResult, tuple[str, ...]]:
    """(the fastest within the ratio, why), the first of `results` being int8. Without one within it, the one that loses least."""
    first = results[0]
    within = [each for each in results if each.ratio <= max_ratio]
    chosen = max(within, key=lambda each: each.speed(first)) if within else min(results, key=lambda each: each.ratio)
    descriptions = [describe_build(each, first) for each in results]
    if not within:
        return chosen, (*descriptions, f"None is within x {max_ratio:g}; {chosen.name} loses least.")
    why = f"{chosen.name} is the fastest of the {len(within)} of {len(results)} builds within x {max_ratio:g}."
    return chosen, (*descriptions, why)


def describe_build(result: BuildResult, other: BuildResult) -> str:
    """The measurements of a build beside those of another one, as a sentence."""
    one, eight = result.tokens_per_s
    return (
        f"{result.name}: perplexity x {result.ratio:.4f}, {result.size_bytes / 1e6:.0f} MB, {one:.0f} tokens/s for one client and "
        f"{eight:.0f} for eight, {result.speed(other):.2f} times as fast as {other.name}."
    )


Metric = Literal[
    "exact_match", "accuracy", "f1", "last_number", "json_validity", "tool_call_match", "bleu", "chrf", "rouge_l", "perplexity"
]
_FLOATS = ("fp16", "fp32")


class QuantizeParams(Params):
    """Quantizes a model. With precision auto, it searches for the fastest build within max_quality_loss."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "my-model", "precision": "int8"}]})

    model: VersionName = Field(min_length=1, description="The version to quantize.")
    output: str | None = Field(None, description="Name of the model made; by default the model's with -quantized.")
    precision: Literal["auto", "int8", "int4", "mixed", "fp16", "fp32"] = Field(
        "auto", description="Precision of the weights; auto searches, mixed goes by int4_layers."
    )
    int4_layers: list[Group] = Field(
        default_factory=list, description="For mixed: the kinds of layers that get int4; others get int8."
    )
    algorithm: Algorithm | None = Field(None, description="Rounding to 4 bits; by default k-quant, and auto tries awq too.")
    symmetry: Literal["symmetric", "asymmetric"] | None = Field(
        None, description="Blocks with a zero of their own or not; by default rtn's 4 bits have none, everything else has."
    )
    block_size: Literal[16, 32, 64, 128] | None = Field(None, description="Weights per scale; by default 32 for 4 bits, 64 for 8.")
    head_bits: Literal[4, 8, 16, 32] | None = Field(
        None, description="Bits of the head and the embedding; by default 8, or a float's."
    )
    max_quality_loss: float = Field(1.03, ge=1, le=10, description="For auto: maximum ratio of the perplexity to the source's.")
    calibration: InputFile | None = Field(
        None, min_length=1, description="Training data of a task, for whose examples weights are rounded and measured."
    )
    data: InputFile | None = Field(None, min_length=1, description="Evaluation data: scores before and after, by metrics.")
    metrics: list[Metric] | None = Field(None, min_length=1, description="Metrics of data; by default exact_match and f1.")
    max_tokens: int = Field(256, ge=1, le=32_768, description="Maximum length of an answer, in tokens.")
    limit: int | None = Field(None, ge=1, description="Use only the first questions of data, this many.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.precision == "mixed") != bool(self.int4_layers):
            raise ValueError("int4_layers and the precision mixed go together: give both or neither")
        if self.precision == "auto" and (self.block_size or self.head_bits or self.symmetry):
            raise ValueError("auto makes its own choice: leave block_size, symmetry and head_bits out")
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
