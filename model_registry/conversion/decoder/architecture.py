"""The network of a decoder of the llama family: its sizes, its rotary embedding, and what distinguishes families. Values only.

Formats read an `Architecture` from what they carry; everything that reads or writes weights works by it alone. Rotary scalings:
none, linear (Chen et al. 2023), YaRN (Peng et al. 2023), and divisors per frequency (Llama 3's, a tensor).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from model_registry.errors import CorruptModel, UnsupportedModel

MAX_CONTEXT = 1 << 20  # tokens
NOPE_INTERVAL = 4  # smollm3: each fourth layer has no rotary embedding
GLOBAL_INTERVAL, LOCAL_THETA = 6, 10000.0  # gemma3: each sixth layer sees everything; the rotary base of the others


class RopeScaling(StrEnum):
    NONE = "none"
    LINEAR = "linear"
    YARN = "yarn"


@dataclass(frozen=True, slots=True)
class Rope:
    """theta: the base. factor: by how much the context was stretched. original_context and what follows: YaRN only."""

    theta: float
    scaling: RopeScaling = RopeScaling.NONE
    factor: float = 1.0
    original_context: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0

    def frequencies(self, head_size: int, divisors: NDArray[np.float32] | None) -> NDArray[np.float64]:
        """Radians per position, [head_size / 2]. divisors: Llama 3's factors, of the same length."""
        plain = self.theta ** (-np.arange(0, head_size, 2, dtype=np.float64) / head_size)
        if divisors is not None:
            plain = plain / divisors.astype(np.float64)
        if self.scaling is RopeScaling.LINEAR:
            return plain / self.factor
        if self.scaling is RopeScaling.YARN:
            keep = self._share_kept(head_size)
            return plain * keep + plain / self.factor * (1 - keep)
        return plain

    @property
    def magnitude(self) -> float:
        """What cosine and sine are multiplied by (YaRN's attention temperature)."""
        if self.scaling is not RopeScaling.YARN:
            return 1.0
        return self.attention_factor * (1 + 0.1 * math.log(self.factor))

    def _share_kept(self, head_size: int) -> NDArray[np.float64]:
        """1 where a frequency turns often in the original context and is kept, 0 where stretched, a ramp between."""

        def dimension(turns: float) -> float:
            return head_size * math.log(self.original_context / (turns * 2 * math.pi)) / (2 * math.log(self.theta))

        low = max(0, math.floor(dimension(self.beta_fast)))
        high = min(head_size - 1, math.ceil(dimension(self.beta_slow)))
        ramp = (np.arange(head_size // 2) - low) / max(0.001, high - low)
        return 1 - np.clip(ramp, 0, 1)


def rotation(
    rope: Rope, frequencies: NDArray[np.float64], start: int, stop: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(cosine, sine) of positions start..stop, each [stop - start, head_size / 2]."""
    angles = np.outer(np.arange(start, stop, dtype=np.float64), frequencies)
    return (
        (np.cos(angles) * rope.magnitude).astype(np.float32),
        (np.sin(angles) * rope.magnitude).astype(np.float32),
    )


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


@dataclass(frozen=True, slots=True)
class Heads:
    """The attention heads of a network: queries', keys' and values', and how many dimensions each has."""

    num_heads: int
    num_kv_heads: int
    size: int


def check_features(name: str, heads: Heads, owner: str, *, has_experts: bool, caps_logits: bool) -> None:
    """Whether the decoder that slmops writes can compute the network. owner: the file that says so, for messages.

    Raises UnsupportedModel by the feature, CorruptModel for heads that cannot be.
    """
    if has_experts:
        raise UnsupportedModel(f"This {name} model is a mixture of experts, which is not supported. Choose a dense model.")
    if caps_logits:
        raise UnsupportedModel(f"This {name} model caps its logits, which is not supported. Choose another model.")
    if heads.num_heads % heads.num_kv_heads:
        raise CorruptModel(
            f"{owner} has {heads.num_heads} heads but {heads.num_kv_heads} key/value heads, no divisor. Fetch it again."
        )
    if heads.size < 2 or heads.size % 16:
        raise UnsupportedModel(f"Heads of {heads.size} dimensions are not supported; choose a model with a multiple of 16.")


def unsupported_scaling(kind: str | None) -> UnsupportedModel:
    """The error for a rotary scaling that is not computed here."""
    return UnsupportedModel(f"Rope scaling {kind!r} is not supported; none, linear, yarn and llama3 are. Choose another model.")
