"""How long a tuning takes and how much memory, told before it starts. Pure arithmetic on measured rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

_FLOPS_PER_THREAD = 45e9  # of training steps in bf16 on a core with AVX-512, measured on SmolLM2-135M
_FLOPS = {"full": 6, "lora": 4.5, "dora": 5.5, "qlora": 5}  # per weight and token, forward and backward
_BYTES = {"full": 18, "lora": 4.5, "dora": 5, "qlora": 0.6}  # per weight: weights, gradients, moments; qlora: without embeddings
_LIBRARIES_BYTES = 700 << 20


@dataclass(frozen=True, slots=True)
class Shape:
    """Of the model: num_weights with embeddings, hidden_size, num_layers, vocab_size."""

    num_weights: int
    hidden_size: int
    num_layers: int
    vocab_size: int


def num_steps(num_examples: int, batch_size: int, accumulation: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps."""
    return min(max(1, math.ceil(steps_per_epoch(num_examples, batch_size, accumulation) * epochs)), max_steps or 2**62)


def steps_per_epoch(num_examples: int, batch_size: int, accumulation: int) -> int:
    """The last one may be of fewer examples."""
    return math.ceil(math.ceil(num_examples / batch_size) / accumulation)


def seconds(shape: Shape, method: str, num_tokens: float, threads: int) -> float:
    """num_tokens: of all passes together."""
    return num_tokens * shape.num_weights * _FLOPS[method] / (_FLOPS_PER_THREAD * max(1, threads)) + 20


def memory_bytes(shape: Shape, method: str, batch_tokens: int, *, checkpointing: bool) -> int:
    """batch_tokens: of the largest batch, padding included."""
    kept = 2 if checkpointing else 34  # https://arxiv.org/abs/2205.05198: bytes per token, layer and unit of width, in bf16
    activations = batch_tokens * shape.hidden_size * shape.num_layers * kept
    logits = min(batch_tokens, 4096) * shape.vocab_size * 8
    embeddings = shape.hidden_size * shape.vocab_size if method == "qlora" else 0  # stay in float32
    weights = (shape.num_weights - embeddings) * _BYTES[method] + embeddings * 4
    return int(_LIBRARIES_BYTES + weights + activations + logits)
