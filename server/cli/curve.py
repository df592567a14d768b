"""A curve of figures as lines of text: block characters, eight heights to a line. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_BLOCKS = " ▁▂▃▄▅▆▇█"


def curve(values: Sequence[float], width: int = 60, height: int = 8) -> list[str]:
    """height lines, the highest first, each with the value that its upper edge means. values: in order, at least one."""
    points = _fitted(values, width)
    low, high = min(points), max(points)
    reach = (high - low) or 1.0
    eighths = [1 + round((value - low) / reach * (8 * height - 1)) for value in points]
    lines = []
    for row in range(height, 0, -1):
        cells = "".join(_BLOCKS[max(0, min(8, each - 8 * (row - 1)))] for each in eighths)
        lines.append(f"{low + reach * row / height:>10.4g} ┤{cells}")
    return lines


def _fitted(values: Sequence[float], width: int) -> list[float]:
    """At most `width` points: means of neighbours."""
    count = min(width, len(values))
    borders = [index * len(values) // count for index in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(borders)]
