"""What the engine needs of a model: one step on rows of KV. The ONNX decoder and the fake model are its implementations."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.batching.slots import Rows


class Runner(Protocol):
    """A decoder and its KV rows."""

    @property
    def kv(self) -> Rows: ...

    def prefill(
        self, row: int, tokens: NDArray[np.int32], start: int, *, num_logits: int = 1, adapter: int = 0
    ) -> NDArray[np.float32]:
        """Computes tokens [n] of a row that already holds `start` of them. Returns logits [num_logits, vocab] after the last ones.

        adapter: which one's weights are added, counted from 1; 0: none.

        The returned array may be changed by the caller and is valid until the next call.
        """
        ...

    def decode(
        self, tokens: NDArray[np.int32], lengths: NDArray[np.int32], adapters: NDArray[np.int32] | None = None
    ) -> NDArray[np.float32]:
        """One token for each of rows 0..n-1. tokens [n]; lengths [n]: tokens in each row with this one. Returns logits [n, vocab].

        adapters: [n], each row's, as in `prefill`; None: none.

        The returned array may be changed by the caller and is valid until the next call.
        """
        ...

    def set_threads(self, num_threads: int) -> None:
        """Computes with so many from the next call on. What the rows hold stays."""
        ...

    def close(self) -> None: ...
