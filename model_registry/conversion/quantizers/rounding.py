"""How one matrix is rounded where a recipe tells it: which algorithm, around which zero, and what its inputs are like. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.quantizers.gptq import quantize_gptq
from model_registry.conversion.quantizers.kquant import quantize_k
from model_registry.conversion.quantizers.recipe import Rounding
from model_registry.conversion.quantizers.rtn import Blocks, quantize

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InputFigures:
    """Of what a matrix is given (smoothed, if it will be), on calibration text.

    loudness: mean squares, [columns]. upper: for GPTQ, of the Gram matrix; None where nobody asked for it.
    """

    loudness: Floats
    upper: Floats | None = None


@dataclass(frozen=True, slots=True)
class How:
    """inputs: None when nothing is known of them: then every column weighs the same, and GPTQ rounds as k-quant."""

    rounding: Rounding
    is_symmetric: bool
    inputs: InputFigures | None = None

    def blocks(self, values: Floats, bits: int, block: int) -> Blocks:
        """[rows, columns], already smoothed."""
        if self.rounding == "nearest":
            return quantize(values, bits, block, is_symmetric=self.is_symmetric)
        upper = None if self.inputs is None else self.inputs.upper
        if self.rounding == "gptq" and upper is not None:
            return quantize_gptq(values, block, upper, is_symmetric=self.is_symmetric)
        loudness = None if self.inputs is None else self.inputs.loudness
        return quantize_k(values, bits, block, loudness, is_symmetric=self.is_symmetric)
