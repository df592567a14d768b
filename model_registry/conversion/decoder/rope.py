"""Rotary position embedding: frequencies and their scalings, as pure functions. Knows nothing of files or graphs.

Scalings: none, linear (Chen et al. 2023), YaRN (Peng et al. 2023), and divisors per frequency (Llama 3's, a tensor).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


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
