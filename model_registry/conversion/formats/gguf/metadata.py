"""The key/value part of a GGUF file, with typed access: a value of the wrong kind raises CorruptModel, which names its key.

Knows nothing of bytes, tensors or architectures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_registry.errors import CorruptModel

Value = bool | int | float | str | list[str] | NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Metadata:
    """Values by key. A method raises CorruptModel for a value of another kind than it returns.

    For an absent key it returns its default; `integer` and `number` without one, and `texts`, raise CorruptModel.
    owner: what the values stand in, for messages.
    """

    values: Mapping[str, Value]
    owner: str = "The GGUF file"

    def text(self, key: str, default: str | None = None) -> str | None:
        value = self.values.get(key, default)
        if value is None or isinstance(value, str):
            return value
        raise self._wrong(key, "a text")

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if isinstance(value, bool):
            return value
        raise self._wrong(key, "true or false")

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int = 1 << 40) -> int:
        """A whole number in [low, high]; a list of equal numbers (one per layer) counts as that number."""
        value = self._single(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, "a whole number")
        if not low <= value <= high:
            raise CorruptModel(f"{self.owner}'s {key} is {value}, outside {low} to {high}. Fetch the file again.")
        return value

    def number(self, key: str, default: float | None = None, *, above: float = 0.0, at_most: float = 1e30) -> float:
        """A finite number in (above, at_most]."""
        value = self._single(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number")
        if not (math.isfinite(value) and above < value <= at_most):
            raise CorruptModel(f"{self.owner}'s {key} is {value}, which no model has. Fetch the file again.")
        return float(value)

    def token_id(self, key: str, vocab_size: int) -> int | None:
        """A token id; None when absent, or negative (written as "none" by some converters)."""
        if key not in self.values:
            return None
        value = self.integer(key, low=-1, high=(1 << 32) - 1)
        if value in (-1, (1 << 32) - 1):
            return None
        if value >= vocab_size:
            raise CorruptModel(f"{self.owner}'s {key} is {value}, but there are {vocab_size} tokens. Fetch it again.")
        return value

    def texts(self, key: str) -> Sequence[str]:
        value = self.values.get(key)
        if isinstance(value, list):
            return value
        if isinstance(value, np.ndarray) and value.size == 0:
            return ()
        raise self._absent(key) if value is None else self._wrong(key, "a list of texts")

    def numbers(self, key: str) -> NDArray[np.generic] | None:
        value = self.values.get(key)
        if value is None or isinstance(value, np.ndarray):
            return value
        raise self._wrong(key, "a list of numbers")

    def _single(self, key: str, default: float | None) -> Value:
        value = self.values.get(key, default)
        if value is None:
            raise self._absent(key)
        if isinstance(value, np.ndarray):
            distinct = np.unique(value)
            if distinct.size != 1:
                raise CorruptModel(
                    f"{self.owner}'s {key} differs from layer to layer, which slmops cannot run. "
                    "Choose a model whose layers are alike."
                )
            single: Value = distinct[0].item()
            return single
        return value

    def _wrong(self, key: str, wanted: str) -> CorruptModel:
        return CorruptModel(f"{self.owner}'s {key} is not {wanted}. The file is damaged or was converted wrongly; fetch it again.")

    def _absent(self, key: str) -> CorruptModel:
        return CorruptModel(f"{self.owner} has no {key}. The file is incomplete; fetch it again, or convert the model again.")
