"""The options of onnxruntime-genai's model builder, declared and checked, and names of builds such as `cpu-int8`. Pure.

Source: the builder's `--help` of release 0.18 (`python -m onnxruntime_genai.models.builder`). Imports nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field

from jobs.task import Params
from model_registry.records import Precision


class Provider(StrEnum):
    """Execution providers that it builds for, by their short names here."""

    CPU = "cpu"
    CUDA = "cuda"
    DIRECTML = "directml"
    WEBGPU = "webgpu"
    TRT_RTX = "trt-rtx"


_THEIR_NAMES = {Provider.DIRECTML: "dml", Provider.TRT_RTX: "NvTensorRtRtx"}
# What it builds for each. auto takes the first. fp16 for the CPU would be built too, but attention in fp16 is slow there.
PRECISIONS: Mapping[Provider, tuple[Precision, ...]] = MappingProxyType(
    {
        Provider.CPU: (Precision.INT8, Precision.INT4, Precision.FP32),
        Provider.CUDA: (Precision.FP16, Precision.INT4, Precision.INT8, Precision.FP32),
        Provider.DIRECTML: (Precision.FP16, Precision.INT4),
        Provider.WEBGPU: (Precision.INT8, Precision.INT4, Precision.FP16),
        Provider.TRT_RTX: (Precision.FP16, Precision.INT4),
    }
)
_ROUNDED = (Precision.INT4, Precision.INT8)


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """What is to be built. precision: never auto. provider: in the builder's words. extra: its extra options, as texts."""

    precision: Precision
    provider: str
    extra: Mapping[str, str]


class BuilderOptions(Params):
    """Options of the model builder; each is left to the builder where it is left out."""

    execution_provider: Provider = Field(
        Provider.CPU, description="Execution provider of the graph; others than cpu need the builder."
    )
    algorithm: Literal["default", "rtn", "k_quant"] | None = Field(None, description="How weights are rounded to 4 or 8 bits.")
    block_size: Literal[16, 32, 64, 128, 256] | None = Field(None, description="Weights per scale; by default 32.")
    accuracy_level: Literal[1, 2, 3, 4] | None = Field(
        None, description="Least precision of activations in rounded products: 1 fp32, 2 fp16, 3 bf16, 4 int8."
    )
    symmetric: bool | None = Field(None, description="Whether blocks have no zero point; by default true.")
    int8_head: bool = Field(False, description="With int4: the head keeps 8 bits.")
    int8_sensitive_layers: bool = Field(False, description="With int4: the most sensitive layers keep 8 bits.")
    keep_float: list[str] = Field(default_factory=list, description="Nodes that are not rounded, e.g. /lm_head/MatMul.")
    quantize_embedding: bool = Field(False, description="Whether the embedding is rounded too.")
    shared_embedding: bool | None = Field(None, description="Whether head and embedding are stored once; by default if tied.")
    fuse_qkv: bool | None = Field(None, description="Whether q, k and v are one product; by default true.")
    qdq: bool = Field(False, description="Quantize and dequantize operators instead of one for the product.")
    cuda_bf16: bool = Field(False, description="For cuda with int4: activations in bf16.")
    cuda_graph: bool = Field(False, description="For cuda: steps are captured as a graph.")
    webgpu_fp32: bool = Field(False, description="For webgpu: activations in fp32, for GPUs without fp16.")
    paged_attention: bool = Field(False, description="For cuda with fp16: a paged KV cache, so that requests share steps.")

    def options(self) -> dict[str, Any]:
        """The options that differ from their defaults, as JSON values."""
        fields = BuilderOptions.model_fields
        given = self.model_dump(mode="json", include=set(fields))
        return {name: value for name, value in given.items() if value != fields[name].get_default(call_default_factory=True)}

    def order(self, requested: Precision) -> BuildOrder:
        """Raises ValueError, with the reason, for what does not go together."""
        possible = PRECISIONS[self.execution_provider]
        precision = possible[0] if requested is Precision.AUTO else requested
        if precision not in possible:
            raise ValueError(f"the model builder makes {', '.join(possible)} for {self.execution_provider}, not {precision}")
        _check(self, precision)
        provider = _THEIR_NAMES.get(self.execution_provider, str(self.execution_provider))
        return BuildOrder(precision, provider, MappingProxyType(_builder_arguments(self, precision)))


def _check(options: BuilderOptions, precision: Precision) -> None:
    given = options.options()
    rounding = {"algorithm", "block_size", "accuracy_level", "symmetric", "keep_float", "quantize_embedding", "qdq"}
    if precision not in _ROUNDED and (wrong := sorted(rounding & given.keys())):
        raise ValueError(f"{wrong[0]} is for int4 and int8, and nothing is rounded in {precision}")
    if precision is not Precision.INT4 and (wrong := sorted({"int8_head", "int8_sensitive_layers", "cuda_bf16"} & given.keys())):
        raise ValueError(f"{wrong[0]} is for int4")
    for name, provider in (("cuda_bf16", "cuda"), ("cuda_graph", "cuda"), ("paged_attention", "cuda"), ("webgpu_fp32", "webgpu")):
        if name in given and options.execution_provider != provider:
            raise ValueError(f"{name} is for the execution provider {provider}")
    if options.paged_attention and precision is not Precision.FP16:
        raise ValueError("paged_attention is for fp16")
    if options.qdq and precision is Precision.INT8:
        raise ValueError("qdq is for int4; products of 8 bits have no such form")
    if any("," in node for node in options.keep_float):
        raise ValueError("keep_float lists nodes one by one, without commas")


def _builder_arguments(options: BuilderOptions, precision: Precision) -> dict[str, str]:
    mixed = {"last_matmul": options.int8_head, "mixed_layers": options.int8_sensitive_layers}
    named: dict[str, Any] = {
        "algo_config": options.algorithm,
        "block_size": options.block_size,
        "accuracy_level": options.accuracy_level,
        "is_symmetric": options.symmetric,
        "matmul_mixed_precision": ",".join(f"{group}:int8" for group, keeps in mixed.items() if keeps) or None,
        "nodes_to_exclude": ",".join(options.keep_float) or None,
        "op_types_to_quantize": "MatMul/Gather" if options.quantize_embedding else None,
        "shared_embeddings": options.shared_embedding,
        "fuse_qkv": options.fuse_qkv,
        "use_qdq": options.qdq or None,
        "use_cuda_bf16": options.cuda_bf16 or None,
        "enable_cuda_graph": options.cuda_graph or None,
        "use_webgpu_fp32": options.webgpu_fp32 or None,
        "use_paged_attention": options.paged_attention or None,
    }
    if options.execution_provider is Provider.CPU:
        named["windowed_kv_cache"] = False  # our engine keeps every layer's KV over the whole context
    named["hf_token"] = False  # it would look one up
    named["hf_remote"] = False  # it would run the code of a model's folder
    given = {name: value for name, value in named.items() if value is not None}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}


@dataclass(frozen=True, slots=True)
class BuildName:
    """What is requested of one build. precision: AUTO leaves it to the importer or builder."""

    provider: Provider
    precision: Precision

    def __str__(self) -> str:
        return f"{self.provider}-{self.precision}"


def parse_build(text: str) -> BuildName:
    """Raises ValueError, with what may be written."""
    provider, _, precision = text.rpartition("-")
    try:
        return BuildName(Provider(provider), Precision(precision))
    except ValueError:
        known = f"one of {', '.join(Provider)} and one of {', '.join(Precision)}"
        raise ValueError(f"{text!r} names no build: write PROVIDER-PRECISION, with {known}") from None


def parse_builds(texts: list[str]) -> tuple[BuildName, ...]:
    """Raises ValueError, also for one that is named twice."""
    names = tuple(map(parse_build, texts))
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} is named twice")
    return names
