"""What a checkpoint's config.json says of the network: its fields and their bounds, as a GGUF file's metadata. Reads no weights.

A field that cannot be is a CorruptModel by its name; a network that is sound and not ours an UnsupportedModel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from model_registry.conversion.decoder.architecture import FAMILIES, MAX_CONTEXT, Architecture, read_architecture
from model_registry.conversion.formats.checkpoint.writer import CLASSES
from model_registry.conversion.formats.gguf.metadata import Metadata, Value
from model_registry.conversion.formats.model_texts import Size, TokenId
from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.json_files import checked, read_object

FILE = "config.json"
_NAMES = {kind: name for name, (kind, _) in CLASSES.items()} | {"mistral": "llama"}
_Heads = Annotated[int, Meta(ge=1, le=1 << 12)]
_Positive = Annotated[float, Meta(gt=0, le=1e30)]
_Whole = Annotated[int, Meta(ge=0, le=1 << 31)]


class Rope(Struct, frozen=True):
    """`rope_scaling`, `rope_parameters`, or one of the latter's entries per type of layer."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: _Positive | None = None
    factor: _Positive | None = None
    original_max_position_embeddings: Size | None = None
    beta_fast: _Positive | None = None
    beta_slow: _Positive | None = None


class LayerRopes(Rope, frozen=True):
    full_attention: Rope | None = None
    sliding_attention: Rope | None = None


class CheckpointConfig(Struct, frozen=True):
    """What is read of config.json, in its own words."""

    model_type: str
    hidden_size: Annotated[int, Meta(ge=8, le=1 << 17)]
    intermediate_size: Annotated[int, Meta(ge=1, le=1 << 20)]
    num_hidden_layers: Annotated[int, Meta(ge=1, le=1 << 10)]
    max_position_embeddings: Annotated[int, Meta(ge=1, le=MAX_CONTEXT)]
    num_attention_heads: _Heads
    num_key_value_heads: _Heads | None = None
    head_dim: Annotated[int, Meta(ge=2, le=1 << 12)] | None = None
    rms_norm_eps: Annotated[float, Meta(gt=0, le=1)] = 1e-6
    vocab_size: Size | None = None
    tie_word_embeddings: bool | None = None
    num_local_experts: _Whole | None = None
    num_experts: _Whole | None = None
    sliding_window: _Whole | None = None
    use_sliding_window: bool | None = None
    query_pre_attn_scalar: _Positive = 256.0
    attn_logit_softcapping: _Positive | None = None
    final_logit_softcapping: _Positive | None = None
    rope_parameters: LayerRopes | None = None
    rope_scaling: Rope | None = None
    rope_theta: _Positive | None = None
    rope_local_base_freq: _Positive | None = None
    eos_token_id: TokenId | list[TokenId] | None = None
    bos_token_id: int | None = None
    pad_token_id: int | None = None


def read_config(folder: Path) -> CheckpointConfig:
    """Raises CorruptModel, UnsupportedModel by the model's type."""
    config = read_object(folder / FILE)
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _NAMES:
        raise UnsupportedModel(
            f"Checkpoints of the type {kind!r} are not imported; {', '.join(sorted(_NAMES))} are. "
            "Run a job `convert`, which has onnxruntime-genai's model builder for others."
        )
    return checked(config, CheckpointConfig, FILE)


def architecture_of(config: CheckpointConfig) -> Architecture:
    """Raises CorruptModel, UnsupportedModel."""
    name = _NAMES[config.model_type]
    values = {key: value for key, value in _values(name, config) if value is not None}
    architecture = read_architecture(Metadata(values, FILE))
    return replace(architecture, family=replace(FAMILIES[name], interleaved=False))


def _values(name: str, config: CheckpointConfig) -> Iterator[tuple[str, Value | None]]:
    """As the metadata of a GGUF file says it; None for what is not said."""
    heads = config.num_attention_heads
    named: dict[str, Value | None] = {
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "attention.head_count": heads,
        "attention.head_count_kv": config.num_key_value_heads or heads,
        "attention.key_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "expert_count": config.num_local_experts or config.num_experts,
    }
    if config.sliding_window and config.use_sliding_window is not False:
        named["attention.sliding_window"] = config.sliding_window
    if name == "gemma3":
        named["attention.scale"] = config.query_pre_attn_scalar**-0.5
        named |= {"attn_logit_softcapping": config.attn_logit_softcapping}
        named |= {"final_logit_softcapping": config.final_logit_softcapping}
    named |= _rope_values(name, config)
    yield "general.architecture", name
    yield from ((f"{name}.{key}", value) for key, value in named.items())


def _rope_values(name: str, config: CheckpointConfig) -> Mapping[str, Value | None]:
    """From `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before)."""
    given = config.rope_parameters or LayerRopes()
    rope, local = given.full_attention or given, given.sliding_attention or Rope()
    scaling = config.rope_scaling or Rope()
    said: dict[str, Any] = {field: getattr(scaling, field) or getattr(rope, field) for field in Rope.__struct_fields__}
    kind = said["rope_type"] or said["type"] or "default"
    values: dict[str, Value | None] = {"rope.freq_base": said["rope_theta"] or config.rope_theta or 10000.0}
    if name == "gemma3":
        values["rope.freq_base_swa"] = local.rope_theta or config.rope_local_base_freq or 10000.0
    if kind == "default":
        return values
    if said["factor"] is None:
        raise CorruptModel(f"{FILE} is damaged: the rotary scaling {kind!r} has no factor. Fetch the model again.")
    values |= {"rope.scaling.type": kind, "rope.scaling.factor": float(said["factor"])}
    if kind == "yarn":
        values["rope.scaling.original_context_length"] = said["original_max_position_embeddings"]
        values |= {f"rope.scaling.yarn_{key}": said[key] for key in ("beta_fast", "beta_slow")}
    return values
