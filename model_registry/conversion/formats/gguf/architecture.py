"""The network that a GGUF file's metadata describes: metadata in, a frozen Architecture out. Reads no tensor.

Knows the supported families by llama.cpp's names; everything else is refused by name.
"""

from __future__ import annotations

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
from model_registry.conversion.formats.gguf.metadata import Metadata
from model_registry.errors import CorruptModel, UnsupportedModel

GEMMA3_27B_LAYERS = 62  # the one size whose attention is not scaled by its heads' size; the file does not record it


def read_architecture(metadata: Metadata) -> Architecture:
    """Raises UnsupportedModel by name, CorruptModel for values that no model has."""
    name = metadata.text("general.architecture")
    if name is None:
        raise CorruptModel(f"{metadata.owner} lacks general.architecture. Fetch it again, or convert the model again.")
    family = FAMILIES.get(name)
    if family is None:
        raise UnsupportedModel(
            f"GGUF architecture {name!r} is not supported; supported are {', '.join(FAMILIES)} (llama covers mistral "
            "and smollm). Pull the model as an ONNX folder instead."
        )
    hidden = metadata.integer(f"{name}.embedding_length", low=8, high=1 << 17)
    heads = metadata.integer(f"{name}.attention.head_count", low=1, high=1 << 12)
    kv_heads = metadata.integer(f"{name}.attention.head_count_kv", heads, low=1, high=1 << 12)
    head_size = metadata.integer(f"{name}.attention.key_length", hidden // heads, low=2, high=1 << 12)
    _check_heads(metadata, name, Heads(heads, kv_heads, head_size))
    layers = metadata.integer(f"{name}.block_count", low=1, high=1 << 10)
    context = metadata.integer(f"{name}.context_length", low=1, high=MAX_CONTEXT)
    window = metadata.integer(f"{name}.attention.sliding_window", 0, high=1 << 31)
    interval = family.global_interval if window else 0
    is_27b = name == "gemma3" and layers == GEMMA3_27B_LAYERS
    return Architecture(
        name=name,
        family=family,
        num_layers=layers,
        hidden_size=hidden,
        ffn_size=metadata.integer(f"{name}.feed_forward_length", low=1, high=1 << 20),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=head_size,
        norm_epsilon=metadata.number(f"{name}.attention.layer_norm_rms_epsilon", at_most=1.0),
        context_length=context,
        attention_scale=metadata.number(f"{name}.attention.scale", (hidden // heads if is_27b else head_size) ** -0.5),
        rope=_read_rope(metadata, name, context),
        local_rope=Rope(metadata.number(f"{name}.rope.freq_base_swa", LOCAL_THETA, above=1.0)) if interval else None,
        sliding_window=window if 0 < window < context else None,
        global_interval=interval and metadata.integer(f"{name}.attention.sliding_window_pattern", interval, low=1, high=1 << 10),
    )


def _check_heads(metadata: Metadata, name: str, heads: Heads) -> None:
    capped = [metadata.number(f"{name}.{kind}_logit_softcapping", 0.0, above=-1.0) for kind in ("attn", "final")]
    has_experts = metadata.integer(f"{name}.expert_count", 0) > 0
    check_features(name, heads, metadata.owner, has_experts=has_experts, caps_logits=any(capped))
    if metadata.integer(f"{name}.attention.value_length", heads.size) != heads.size:
        raise UnsupportedModel("The model's keys and values differ in size, which is not supported. Choose another model.")
    rotated = metadata.integer(f"{name}.rope.dimension_count", heads.size)
    if rotated != heads.size:
        raise UnsupportedModel(
            f"The model rotates {rotated} of {heads.size} dimensions per head; slmops cannot. Choose another model."
        )


def _read_rope(metadata: Metadata, name: str, context: int) -> Rope:
    theta = metadata.number(f"{name}.rope.freq_base", 10000.0, above=1.0)
    key = f"{name}.rope.scaling"
    kind = metadata.text(f"{key}.type", RopeScaling.NONE)
    legacy = metadata.number(f"{name}.rope.scale_linear", 1.0, at_most=1e4)
    if kind == RopeScaling.NONE:
        return Rope(theta) if legacy == 1.0 else Rope(theta, RopeScaling.LINEAR, legacy)
    factor = metadata.number(f"{key}.factor", legacy, at_most=1e4)
    if kind == RopeScaling.LINEAR:
        return Rope(theta, RopeScaling.LINEAR, factor)
    if kind != RopeScaling.YARN:
        raise unsupported_scaling(kind)
    return Rope(
        theta,
        RopeScaling.YARN,
        factor,
        original_context=metadata.integer(f"{key}.original_context_length", context, low=1, high=MAX_CONTEXT),
        beta_fast=metadata.number(f"{key}.yarn_beta_fast", 32.0),
        beta_slow=metadata.number(f"{key}.yarn_beta_slow", 1.0),
        attention_factor=metadata.number(f"{key}.attn_factor", 1.0),
    )
