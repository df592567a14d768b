"""A quantization for people: what was tried, what was chosen and why, and scores before and after. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.tasks.evaluate.metrics import Measured
from jobs.tasks.quantize.candidates import Tried


def markdown(
    label: str, before: Tried, tried: Sequence[Tried], why: Sequence[str], scores: Mapping[str, tuple[Measured, Measured]]
) -> str:
    """scores: of each metric, before and after."""
    head = ["| build | perplexity over source | MB | tokens/s, 1 client | tokens/s, 8 clients |", "|---|---|---|---|---|"]
    lines = [f"# Quantization of {label}", "", *head, *(_row(each) for each in (before, *tried)), "", *why, ""]
    if scores:
        lines += ["| score | before | after |", "|---|---|---|"]
        lines += [f"| {metric} | {_figure(one)} | {_figure(two)} |" for metric, (one, two) in scores.items()]
        lines += [""]
    return "\n".join(lines)


def _row(tried: Tried) -> str:
    cells = (tried.name, f"{tried.ratio:.4f}", f"{tried.size_bytes / 1e6:.0f}", *map(round, tried.tokens_per_s))
    return f"| {' | '.join(map(str, cells))} |"


def _figure(measured: Measured) -> str:
    return f"{measured.value:.4g} ({measured.low:.3g} to {measured.high:.3g})"
