"""An evaluation for people: Markdown, and HTML with plots that needs nothing beside it. No question or answer is in it."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.tasks.evaluate.metrics import Measured

_STYLE = "body{font:16px sans-serif;max-width:60em;margin:2em auto}td,th{padding:.3em 1em;text-align:right}"


@dataclass(frozen=True, slots=True)
class Column:
    """One target's figures."""

    name: str
    figures: Mapping[str, Measured]


def markdown(title: str, facts: Sequence[str], columns: Sequence[Column]) -> str:
    names = list(dict.fromkeys(name for column in columns for name in column.figures))
    head = ["| metric |", *(f" {column.name} |" for column in columns)]
    rows = ["".join(head), "|---|" + "---|" * len(columns)]
    rows += [f"| {name} |" + "".join(f" {_figure(column.figures.get(name))} |" for column in columns) for name in names]
    return "\n".join([f"# {title}", "", *(f"- {fact}" for fact in facts), "", *rows, ""])


def page(title: str, facts: Sequence[str], columns: Sequence[Column]) -> str:
    names = list(dict.fromkeys(name for column in columns for name in column.figures))
    head = "".join(f"<th>{html.escape(column.name)}</th>" for column in columns)
    cells = {name: "".join(f"<td>{_figure(column.figures.get(name))}</td>" for column in columns) for name in names}
    rows = "".join(f"<tr><th>{html.escape(name)}</th>{cells[name]}</tr>" for name in names)
    items = "".join(f"<li>{html.escape(fact)}</li>" for fact in facts)
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><ul>{items}</ul><table><tr><th></th>{head}</tr>{rows}</table>{plot(columns, names)}\n"
    )


def plot(columns: Sequence[Column], names: Sequence[str]) -> str:
    """Bars with their intervals, as SVG; the metrics from 0 to 1 only, which share an axis."""
    shown = [name for name in names if all(0 <= each.high <= 1 for column in columns if (each := column.figures.get(name)))]
    if not shown:
        return ""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 1.2 * len(shown), 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(columns)
    for position, column in enumerate(columns):
        found = [(index, column.figures[name]) for index, name in enumerate(shown) if name in column.figures]
        at = [index + position * width for index, _ in found]
        errors = [[each.value - each.low for _, each in found], [each.high - each.value for _, each in found]]
        axes.bar(at, [each.value for _, each in found], width, yerr=errors, capsize=3, label=column.name)
    axes.set_xticks([index + 0.4 - width / 2 for index in range(len(shown))], shown)
    axes.set_ylim(0, 1)
    axes.legend()
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue().partition("<svg")[1] + drawn.getvalue().partition("<svg")[2]


def write_reports(folder: Path, title: str, facts: Sequence[str], columns: Sequence[Column]) -> tuple[str, ...]:
    """The names of the files."""
    (folder / "report.md").write_text(markdown(title, facts, columns), encoding="utf-8")
    (folder / "report.html").write_text(page(title, facts, columns), encoding="utf-8")
    return ("report.md", "report.html")


def _figure(measured: Measured | None) -> str:
    if measured is None:
        return ""
    return f"{measured.value:.4g} ({measured.low:.3g} to {measured.high:.3g})"
