"""Which examples share a row: best fit, the longest first. Pure: lengths in, groups out.

The same lengths with the same seed give the same rows, so that a run that was interrupted goes on with them.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.tasks.finetune.rendering import IGNORED, Tokens


@dataclass(frozen=True, slots=True)
class PackedRow:
    """Several examples one after another. position_ids: begin at 0 with each, which is how attention knows its borders."""

    input_ids: list[int]
    labels: list[int]
    position_ids: list[int]


def best_fit(lengths: Sequence[int], capacity: int, seed: int) -> list[list[int]]:
    """Rows of indices whose lengths sum up to capacity at most. An index stands in one row; no length is over capacity."""
    order = list(range(len(lengths)))
    random.Random(seed).shuffle(order)  # noqa: S311 - neighbours among examples of one length, no secret
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, row), ascending
    for index in sorted(order, key=lengths.__getitem__, reverse=True):
        place = bisect_left(free, (lengths[index], 0))
        if place == len(free):
            left, row = capacity, len(rows)
            rows.append([])
        else:
            left, row = free.pop(place)
        rows[row].append(index)
        insort(free, (left - lengths[index], row))
    return rows


def packed_row(examples: Sequence[Tokens]) -> PackedRow:
    """An example's first token is never learned: it would be learned from the example before it."""
    return PackedRow(
        [token for example in examples for token in example.input_ids],
        [label for example in examples for label in (IGNORED, *example.labels[1:])],
        [position for example in examples for position in range(len(example.input_ids))],
    )
