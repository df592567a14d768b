"""The source model's forward pass in NumPy, straight from its tensors: the truth that imports are compared with.

One layer is in memory at a time, so a model larger than memory can be measured. Plain, and independent of the graph:
rotary rows stay interleaved as the file has them, and rotation pairs neighbours instead of halves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.decoder.architecture import Activation, rotation
from model_registry.conversion.source import (
    EMBEDDING,
    FINAL_NORM,
    HEAD,
    POST_ATTENTION_NORM,
    POST_FFN_NORM,
    ROPE_DIVISORS,
    Floats,
    TensorSource,
)

TOKENS_AT_A_TIME = 128  # of logits, which are [tokens, vocabulary]
Observer = Callable[[str, Floats], None]  # called with a matrix's name, such as `ffn_up`, and its input [tokens, columns]


def reference_logits(source: TensorSource, windows: Sequence[NDArray[np.int64]]) -> Iterator[Floats]:
    """Logits [tokens, vocabulary] of each window, in pieces of TOKENS_AT_A_TIME tokens, windows in order.

    A window is read from an empty context. Raises CorruptModel for tensors that are not finite.
    """
    hidden = embed(source, windows)
    for layer in range(source.architecture.num_layers):
        block = Block(source, layer)
        hidden = [block.run(states) for states in hidden]
    head = source.read(HEAD if HEAD in source.tensors else EMBEDDING)
    for states in hidden:
        normed = final_norm(source, states)
        for start in range(0, len(normed), TOKENS_AT_A_TIME):
            yield normed[start : start + TOKENS_AT_A_TIME] @ head.T


def embed(source: TensorSource, windows: Sequence[NDArray[np.int64]]) -> list[Floats]:
    """The residual stream before the first layer, [tokens, hidden] of each window."""
    scale = np.float32(source.architecture.embedding_scale)
    return [source.read_rows(EMBEDDING, window) * scale for window in windows]


def final_norm(source: TensorSource, states: Floats) -> Floats:
    """What the head is given, [tokens, hidden], from the residual stream after the last layer."""
    return _rms_norm(states, source.read(FINAL_NORM), source.architecture.norm_epsilon)


def _rms_norm(x: Floats, weight: Floats, epsilon: float) -> Floats:
    scale = np.sqrt(np.mean(x.astype(np.float64) ** 2, axis=-1, keepdims=True) + epsilon)
    normed: Floats = (x / scale * weight).astype(np.float32)
    return normed


class Block:
    """One layer, its weights in memory for as long as this lives: `weights[name]` is [rows, columns]."""

    def __init__(self, source: TensorSource, layer: int, observe: Observer | None = None) -> None:
        self._source = source
        self._architecture = architecture = source.architecture
        self._layer = layer
        self._observe = observe
        names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
        self.weights = {name: source.read(f"blk.{layer}.{name}.weight") for name in names}
        divisors = source.read(ROPE_DIVISORS) if ROPE_DIVISORS in source.tensors else None
        self._rope = architecture.layer_rope(layer)
        self._frequencies = self._rope.frequencies(architecture.head_size, divisors)

    def run(self, states: Floats) -> Floats:
        """[tokens, hidden] to the same."""
        attended = self._linear(self._attend(self._norm(states, "attn_norm")), "attn_output")
        states = states + self._post_norm(attended, POST_ATTENTION_NORM)
        normed = self._norm(states, "ffn_norm")
        gated = self._activate(self._linear(normed, "ffn_gate")) * self._linear(normed, "ffn_up")
        return states + self._post_norm(self._linear(gated, "ffn_down"), POST_FFN_NORM)

    def _activate(self, gate: Floats) -> Floats:
        with np.errstate(over="ignore"):
            if self._architecture.family.activation is Activation.GELU:
                inner = np.float32(np.sqrt(2 / np.pi)) * (gate + np.float32(0.044715) * gate**3)
                active: Floats = np.float32(0.5) * gate * (1 + np.tanh(inner))
            else:
                active = gate / (1 + np.exp(-gate))
        return active

    def _post_norm(self, x: Floats, name: str) -> Floats:
        return self._norm(x, name) if self._architecture.family.post_norms else x

    def _linear(self, x: Floats, name: str) -> Floats:
        bias = f"blk.{self._layer}.{name}.bias"
        if self._observe is not None:
            self._observe(name, x)
        result = x @ self.weights[name].T
        return result + self._source.read(bias) if bias in self._source.tensors else result

    def _norm(self, x: Floats, name: str) -> Floats:
        return _rms_norm(x, self._source.read(f"blk.{self._layer}.{name}.weight"), self._architecture.norm_epsilon)

    def _attend(self, normed: Floats) -> Floats:
        architecture = self._architecture
        count, size = len(normed), architecture.head_size
        query, key, value = (
            self._linear(normed, name).reshape(count, -1, size).swapaxes(0, 1) for name in ("attn_q", "attn_k", "attn_v")
        )
        if architecture.family.query_key_norm:
            query, key = self._norm(query, "attn_q_norm"), self._norm(key, "attn_k_norm")
        if architecture.rotates(self._layer):
            query, key = self._rotate(query), self._rotate(key)
        group = architecture.num_heads // architecture.num_kv_heads
        key, value = np.repeat(key, group, axis=0), np.repeat(value, group, axis=0)
        scores = query @ key.swapaxes(1, 2) * np.float32(architecture.attention_scale) + self._mask(count)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        attended: Floats = (shares @ value).swapaxes(0, 1).reshape(count, -1)
        return attended

    def _rotate(self, x: Floats) -> Floats:
        """[heads, tokens, size]; pairs are neighbours where the converter interleaved them, else i and i + size / 2."""
        cosine, sine = rotation(self._rope, self._frequencies, 0, x.shape[1])
        half = x.shape[2] // 2
        interleaved = self._architecture.family.interleaved
        first, second = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(0, half), slice(half, None))
        turned = np.empty_like(x)
        turned[:, :, first] = x[:, :, first] * cosine - x[:, :, second] * sine
        turned[:, :, second] = x[:, :, first] * sine + x[:, :, second] * cosine
        return turned

    def _mask(self, count: int) -> Floats:
        """0 where row may see column, else minus infinity."""
        distance = np.arange(count)[:, None] - np.arange(count)[None, :]
        seen = distance >= 0
        window = self._architecture.window(self._layer)
        if window is not None:
            seen &= distance < window
        return np.where(seen, 0, -np.inf).astype(np.float32)
