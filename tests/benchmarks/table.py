"""The table that a comparison ends with: markdown, medians over rounds, ratios against targets. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from tests.benchmarks.workloads import FIGURES, SLMOPS, Figure, Round

Results = Mapping[str, Sequence[Round]]


def markdown(results: Results) -> str:
    """A row per figure; for each other peer its value and, after it, ours / theirs with the target in brackets."""
    peers = [name for name in results if name != SLMOPS]
    headings = ["work", SLMOPS, *(heading for peer in peers for heading in (peer, f"{SLMOPS} / {peer}"))]
    lines = [_line(headings), _line(["---", *("---:" for _ in headings[1:])])]
    for figure in FIGURES:
        ours = _median(figure, results[SLMOPS])
        cells = [f"{figure.title}, {figure.unit}", _number(ours)]
        for peer in peers:
            theirs = _median(figure, results[peer])
            cells += [_number(theirs), _ratio(figure, peer, ours, theirs)]
        lines.append(_line(cells))
    return "\n".join(lines)


def _median(figure: Figure, rounds: Sequence[Round]) -> float | None:
    values = [value for value in map(figure.value, rounds) if value is not None]
    return statistics.median(values) if values else None


def _ratio(figure: Figure, peer: str, ours: float | None, theirs: float | None) -> str:
    if ours is None or not theirs:
        return "-"
    ratio = ours / theirs
    target = figure.targets.get(peer)
    if target is None:
        return f"{ratio:.2f}"
    reached = ratio <= target if figure.less_is_better else ratio >= target
    return f"{ratio:.2f} ({'at most' if figure.less_is_better else 'at least'} {target:g}: {'yes' if reached else 'no'})"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
