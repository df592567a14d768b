"""Which matrices get 4 bits where not all can: those that save the most time for the least damage. Pure.

The damage of a unit is how far the model's predictions move when it alone has 4 bits. Damages nearly add up; how many units fit
within a loss is then measured on whole builds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

MAX_BANDS = 6  # of layers: neighbours are alike, and each unit takes a second or two to measure


@dataclass(frozen=True, slots=True)
class Unit:
    """Matrices that get 4 bits together, and how many weights they have."""

    name: str
    matrices: tuple[str, ...]
    num_weights: int


def units(num_layers: int, kinds: Sequence[str], num_weights: Callable[[str], int], head: Unit) -> list[Unit]:
    """Each kind of matrix in bands of layers, and the head. num_weights: of a matrix by name, such as `blk.3.ffn_up`."""
    size = -(-num_layers // MAX_BANDS)
    found = []
    for kind in kinds:
        for start in range(0, num_layers, size):
            layers = range(start, min(start + size, num_layers))
            matrices = tuple(f"blk.{layer}.{kind}" for layer in layers)
            name = f"{kind} {layers[0]}-{layers[-1]}"
            found.append(Unit(name, matrices, sum(num_weights(matrix) for matrix in matrices)))
    return [*found, head]


def by_worth(found: Sequence[Unit], damages: Mapping[str, float]) -> list[Unit]:
    """The least damage per weight first."""
    return sorted(found, key=lambda unit: damages[unit.name] / unit.num_weights)


def most_within(count: int, ratio: Callable[[int], float], max_ratio: float) -> int:
    """The most of the first units, of `count`, that keep the ratio: by halving, where 0 are known to and all are not."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        if ratio(middle) <= max_ratio:
            low = middle
        else:
            high = middle
    return low
