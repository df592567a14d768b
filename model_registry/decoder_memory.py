"""How much memory a decoder takes, from its sizes: what the pool charges for a model, and the catalog predicts. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_KV_ITEM_BYTES = 4
WORKING_BYTES = 150 << 20  # Python, its libraries, the tokenizer, a step's activations: measured with the default model
PACKED_WEIGHTS = 1.15  # weights in memory / weights on disk: kernels keep them in a layout of their own


@dataclass(frozen=True, slots=True)
class DecoderSizes:
    """What KV memory follows from. context_length: tokens."""

    layers: int
    kv_heads: int
    head_size: int
    context_length: int

    def row_bytes(self, context_length: int | None = None) -> int:
        """The KV of one answer at full length: keys and values, in float32. context_length: a setting, which may only lower it."""
        context = min(context_length or self.context_length, self.context_length)
        return 2 * self.layers * self.kv_heads * self.head_size * _KV_ITEM_BYTES * context


def fixed_bytes(weights_bytes: int) -> int:
    """The memory of a worker without KV. weights_bytes: on disk."""
    return int(weights_bytes * PACKED_WEIGHTS) + WORKING_BYTES
