"""A search as a page: what each trial reached, and against each param. Needs nothing beside it."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from typing import Any


def page(title: str, values: Sequence[float], params: Sequence[Mapping[str, Any]], best: int) -> str:
    """values, params: of finished trials, in order. best: the place of the best."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    names = sorted({name for each in params for name in each})
    figure = Figure(figsize=(4 * (1 + len(names)), 4), layout="constrained")
    axes = figure.subplots(1, 1 + len(names), squeeze=False, sharey=True)[0]
    axes[0].plot(range(len(values)), values, "o")
    axes[0].set_xlabel("trial")
    for place, name in zip(axes[1:], names, strict=True):
        place.plot([_shown(each.get(name)) for each in params], values, "o")
        place.set_xlabel(name)
    for place in axes:
        place.axhline(values[best], color="grey", linewidth=0.5)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    _, tag, body = drawn.getvalue().partition("<svg")
    rows = "".join(
        f"<tr><td>{number}</td><td>{value:.6g}</td><td>{html.escape(str(dict(each)))}</td></tr>"
        for number, (value, each) in enumerate(zip(values, params, strict=True))
    )
    head = f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><h1>{html.escape(title)}</h1>"
    return f"{head}{tag}{body}<table><tr><th>trial</th><th>value</th><th>params</th></tr>{rows}</table>\n"


def _shown(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
