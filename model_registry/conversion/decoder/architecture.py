"""What a GGUF file's metadata says about the network: metadata in, a frozen Architecture out. Pure; reads no tensor.

Knows the supported families and how they differ; everything else is refused by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from model_registry.conversion.decoder.rope import Rope, RopeScaling
from model_registry.conversion.formats.gguf.metadata import Metadata
from model_registry.errors import CorruptModel, UnsupportedModel

MAX_CONTEXT = 1 << 20
NOPE_INTERVAL = 4  # smollm3: each fourth layer has no rotary embedding
GLOBAL_INTERVAL, LOCAL_THETA = 6, 10000.0  # gemma3: each sixth layer sees everything; the rotary base of the others
GEMMA3_27B_LAYERS = 62  # the one size whose attention is not scaled by its heads' size, which its file does not say


class Activation(StrEnum):
    """What the feed-forward's gate passes through. GELU: in its tanh form."""

    SILU = "silu"
    GELU = "gelu"


@dataclass(frozen=True, slots=True)
class Family:
    """interleaved: the converter interleaves the rotary halves of q and k rows, so they must be put back.

    query_key_norm: RMS norm per head on q and k. nope_interval: 0, or every n-th layer goes without rotary embedding.
    global_interval: 0, or only every n-th layer sees beyond the sliding window, and the others have a rotary base of their
    own. post_norms: RMS norm also after attention and feed-forward. scaled_embedding: by the square root of its size.
    genai_type: onnxruntime-genai's name for it, where that is another.
    """

    interleaved: bool
    query_key_norm: bool = False
    nope_interval: int = 0
    global_interval: int = 0
    post_norms: bool = False
    scaled_embedding: bool = False
    activation: Activation = Activation.SILU
    genai_type: str | None = None


FAMILIES = {
    "llama": Family(interleaved=True),  # also mistral and smollm, which GGUF calls llama
    "smollm3": Family(interleaved=True, nope_interval=NOPE_INTERVAL),
    "qwen2": Family(interleaved=False),
    "qwen3": Family(interleaved=False, query_key_norm=True),
    "gemma3": Family(
        interleaved=False,
        query_key_norm=True,
        global_interval=GLOBAL_INTERVAL,
        post_norms=True,
        scaled_embedding=True,
        activation=Activation.GELU,
        genai_type="gemma3_text",
    ),
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder of the llama family. ffn_size: of the gated feed-forward. attention_scale: of queries times keys.

    sliding_window: how many tokens a token sees, itself included; None means all before it. global_interval: 0, or the
    window is not that of every n-th layer. local_rope: of the layers with the window, where it is not `rope`.
    """

    name: str
    family: Family
    num_layers: int
    hidden_size: int
    ffn_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    norm_epsilon: float
    context_length: int
    attention_scale: float
    rope: Rope
    local_rope: Rope | None = None
    sliding_window: int | None = None
    global_interval: int = 0

    def rotates(self, layer: int) -> bool:
        """Whether the layer's attention applies the rotary embedding."""
        interval = self.family.nope_interval
        return interval == 0 or (layer + 1) % interval != 0

    def window(self, layer: int) -> int | None:
        """The layer's sliding window."""
        return None if self._is_global(layer) else self.sliding_window

    def layer_rope(self, layer: int) -> Rope:
        return self.rope if self.local_rope is None or self._is_global(layer) else self.local_rope

    def _is_global(self, layer: int) -> bool:
        return self.global_interval > 0 and (layer + 1) % self.global_interval == 0

    @property
    def embedding_scale(self) -> float:
        return math.sqrt(self.hidden_size) if self.family.scaled_embedding else 1.0

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_size

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_size


def read_architecture(metadata: Metadata) -> Architecture:
    """Raises UnsupportedModel by name, CorruptModel for values that no model has."""
    name = metadata.text("general.architecture")
    if name is None:
        raise CorruptModel(f"{metadata.owner} does not say its general.architecture. Fetch it again, or convert the model anew.")
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
    _check_heads(metadata, name, heads, kv_heads, head_size)
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


def _check_heads(metadata: Metadata, name: str, heads: int, kv_heads: int, head_size: int) -> None:
    if metadata.integer(f"{name}.expert_count", 0):
        raise UnsupportedModel(f"This {name} model is a mixture of experts, which is not supported. Choose a dense model.")
    if any(metadata.number(f"{name}.{kind}_logit_softcapping", 0.0, above=-1.0) for kind in ("attn", "final")):
        raise UnsupportedModel(f"This {name} model caps its logits, which is not supported. Choose another model.")
    if heads % kv_heads:
        raise CorruptModel(f"{metadata.owner} has {heads} heads but {kv_heads} key/value heads, no divisor. Fetch it again.")
    if metadata.integer(f"{name}.attention.value_length", head_size) != head_size:
        raise UnsupportedModel("The model's keys and values differ in size, which is not supported. Choose another model.")
    rotated = metadata.integer(f"{name}.rope.dimension_count", head_size)
    if rotated != head_size:
        raise UnsupportedModel(
            f"The model rotates {rotated} of {head_size} dimensions per head; slmops cannot. Choose another model."
        )
    if head_size % 16:
        raise UnsupportedModel(f"Heads of {head_size} dimensions are not supported; choose a model with a multiple of 16.")


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
        raise UnsupportedModel(f"Rope scaling {kind!r} is not supported; none, linear, yarn and llama3 are. Choose another model.")
    return Rope(
        theta,
        RopeScaling.YARN,
        factor,
        original_context=metadata.integer(f"{key}.original_context_length", context, low=1, high=MAX_CONTEXT),
        beta_fast=metadata.number(f"{key}.yarn_beta_fast", 32.0),
        beta_slow=metadata.number(f"{key}.yarn_beta_slow", 1.0),
        attention_factor=metadata.number(f"{key}.attn_factor", 1.0),
    )
