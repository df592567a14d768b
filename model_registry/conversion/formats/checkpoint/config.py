"""What a checkpoint's config.json says of the network: its fields, their bounds, and the Architecture they mean. Reads no weights.

A field that cannot be is a CorruptModel by its name; a network that is sound and not ours an UnsupportedModel.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from model_registry.conversion.decoder.architecture import (
    FAMILIES,
    LOCAL_THETA,
    MAX_CONTEXT,
    Architecture,
    Heads,
    Rope,
    RopeScaling,
    check_features,
    unsupported_scaling,
)
from model_registry.conversion.formats.checkpoint.writer import CLASSES
from model_registry.conversion.formats.model_texts import Size, TokenId
from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.text_files import checked, read_object

FILE = "config.json"
_NAMES = {kind: name for name, (kind, _) in CLASSES.items()} | {"mistral": "llama"}
_Heads = Annotated[int, Meta(ge=1, le=1 << 12)]
_Positive = Annotated[float, Meta(gt=0, le=1e30)]
_MAX_FACTOR = 1e4  # of the context
_Whole = Annotated[int, Meta(ge=0, le=1 << 31)]


class RopeEntry(Struct, frozen=True):
    """`rope_scaling`, `rope_parameters`, or one of the latter's entries per type of layer."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: _Positive | None = None
    factor: _Positive | None = None
    original_max_position_embeddings: Size | None = None
    beta_fast: _Positive | None = None
    beta_slow: _Positive | None = None


class LayerRopes(RopeEntry, frozen=True):
    full_attention: RopeEntry | None = None
    sliding_attention: RopeEntry | None = None


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
    rope_scaling: RopeEntry | None = None
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
    """The network; transformers' rotary rows are in halves, whatever the family. Raises CorruptModel, UnsupportedModel."""
    name = _NAMES[config.model_type]
    family = replace(FAMILIES[name], interleaved=False)
    heads = config.num_attention_heads
    head_size = config.head_dim or config.hidden_size // heads
    kv_heads = config.num_key_value_heads or heads
    is_gemma = name == "gemma3"
    check_features(
        name,
        Heads(heads, kv_heads, head_size),
        FILE,
        has_experts=bool(config.num_local_experts or config.num_experts),
        caps_logits=is_gemma and bool(config.attn_logit_softcapping or config.final_logit_softcapping),
    )
    context = config.max_position_embeddings
    window = 0 if config.use_sliding_window is False else config.sliding_window or 0
    interval = family.global_interval if window else 0
    return Architecture(
        name=name,
        family=family,
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        ffn_size=config.intermediate_size,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=head_size,
        norm_epsilon=config.rms_norm_eps,
        context_length=context,
        attention_scale=config.query_pre_attn_scalar**-0.5 if is_gemma else head_size**-0.5,
        rope=_rope(config),
        local_rope=_local_rope(config) if interval else None,
        sliding_window=window if 0 < window < context else None,
        global_interval=interval,
    )


def _rope(config: CheckpointConfig) -> Rope:
    """The rotary values, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before)."""
    given = config.rope_parameters or LayerRopes()
    new, old = given.full_attention or given, config.rope_scaling or RopeEntry()
    entry: dict[str, Any] = {field: getattr(old, field) or getattr(new, field) for field in RopeEntry.__struct_fields__}
    theta = _base(entry["rope_theta"] or config.rope_theta or 10000.0)
    kind = entry["rope_type"] or entry["type"] or "default"
    if kind == "default":
        return Rope(theta)
    factor, original = entry["factor"], entry["original_max_position_embeddings"] or config.max_position_embeddings
    if factor is None:
        raise CorruptModel(f"{FILE} is damaged: the rotary scaling {kind!r} has no factor. Fetch the model again.")
    if kind not in (RopeScaling.LINEAR, RopeScaling.YARN):
        raise unsupported_scaling(kind)
    if factor > _MAX_FACTOR or original > MAX_CONTEXT:
        raise CorruptModel(f"{FILE} has a rotary scaling by {factor} from {original} tokens, which no model has. Fetch it again.")
    if kind == RopeScaling.LINEAR:
        return Rope(theta, RopeScaling.LINEAR, factor)
    fast, slow = entry["beta_fast"] or 32.0, entry["beta_slow"] or 1.0
    return Rope(theta, RopeScaling.YARN, factor, original_context=original, beta_fast=fast, beta_slow=slow)


def _local_rope(config: CheckpointConfig) -> Rope:
    """Of gemma3's layers with the window."""
    given = (config.rope_parameters or LayerRopes()).sliding_attention or RopeEntry()
    return Rope(_base(given.rope_theta or config.rope_local_base_freq or LOCAL_THETA))


def _base(theta: float) -> float:
    if theta <= 1:
        raise CorruptModel(f"{FILE}'s rope_theta is {theta}, which no model has. Fetch the file again.")
    return float(theta)
