"""A panel as data, and as Grafana's JSON. Knows no metric of slmops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLOURS = {"good": "green", "warn": "orange", "bad": "red"}


class Kind(StrEnum):
    STAT = "stat"
    LINES = "timeseries"
    STATES = "state-timeline"
    HEATMAP = "heatmap"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class Query:
    """legend: what names the line, with `{{label}}` for a label's value."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """unit: one of Grafana's. thresholds: a value and what it means from there on, `good`, `warn` or `bad`; below the first: good.

    width, height: of 24 columns, and in rows of about 30 pixels. stacked: lines are areas that add up. states: texts for values.
    most: of the axis. without_data: what is shown where a query finds nothing.
    """

    kind: Kind
    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str
    thresholds: tuple[tuple[float, str], ...] = ()
    width: int = 8
    height: int = 8
    stacked: bool = False
    states: Mapping[float, tuple[str, str]] | None = None
    most: float | None = None
    without_data: str = "no data"


def stat(title: str, description: str, expression: str, unit: str, **further: Any) -> Panel:
    """One figure. legend: of its only query; default: the title."""
    legend = further.pop("legend", title)
    return Panel(Kind.STAT, title, description, (Query(expression, legend),), unit, **{"width": 4, "height": 4, **further})


def lines(title: str, description: str, unit: str, *queries: tuple[str, str], **further: Any) -> Panel:
    """queries: expression and legend of each."""
    return Panel(Kind.LINES, title, description, tuple(Query(*query) for query in queries), unit, **further)


def percentiles(title: str, description: str, histogram: str, where: str, unit: str = "s", **further: Any) -> Panel:
    """Median, 95th and 99th of a histogram over all that `where` selects."""
    rate = f"sum by (le) (rate({histogram}_bucket{{{where}}}[$__rate_interval]))"
    queries = [(f"histogram_quantile({part}, {rate})", f"p{part * 100:g}") for part in (0.5, 0.95, 0.99)]
    return lines(title, description, unit, *queries, **further)


def heatmap(title: str, description: str, histogram: str, where: str, unit: str = "s", **further: Any) -> Panel:
    query = Query(f"sum by (le) (increase({histogram}_bucket{{{where}}}[$__rate_interval]))", "{{le}}")
    return Panel(Kind.HEATMAP, title, description, (query,), unit, **further)


def as_json(panel: Panel, id_: int, place: Mapping[str, int]) -> dict[str, Any]:
    """place: its gridPos."""
    return {
        "id": id_,
        "type": str(panel.kind),
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": dict(place),
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind](panel),
        "targets": [_target(panel, query, "ABCDEFGH"[number]) for number, query in enumerate(panel.queries)],
    }


def _target(panel: Panel, query: Query, ref: str) -> dict[str, Any]:
    shape = {Kind.HEATMAP: "heatmap", Kind.TABLE: "table"}.get(panel.kind, "time_series")
    instant = panel.kind in (Kind.TABLE, Kind.STAT) and "$__rate_interval" not in query.expression
    timing = {"instant": instant, "range": not instant}
    named = {"refId": ref, "datasource": DATASOURCE, "expr": query.expression, "legendFormat": query.legend}
    return {**named, **timing, "format": shape, "editorMode": "code"}


def _defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": _COLOURS["good"], "value": None}]
    steps += [{"color": _COLOURS[meaning], "value": value} for value, meaning in panel.thresholds]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "noValue": panel.without_data,
        "color": {"mode": "palette-classic" if panel.kind is Kind.LINES else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": _line_style(panel) if panel.kind is Kind.LINES else {},
    }
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.states:
        texts = {f"{value:g}": {"text": text, "color": _COLOURS[meaning]} for value, (text, meaning) in panel.states.items()}
        defaults["mappings"] = [{"type": "value", "options": texts}]
    return defaults


def _line_style(panel: Panel) -> dict[str, Any]:
    return {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 30 if panel.stacked else 10,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if panel.thresholds else "off"},
    }


_LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True}


def _stat_options(panel: Panel) -> dict[str, Any]:
    graph = "area" if "$__rate_interval" in panel.queries[0].expression else "none"
    named = "name" if panel.unit == "none" else "value"
    reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    return {"reduceOptions": reduced, "colorMode": "value", "graphMode": graph, "textMode": named, "justifyMode": "auto"}


def _line_options(panel: Panel) -> dict[str, Any]:
    return {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}}


def _state_options(panel: Panel) -> dict[str, Any]:
    return {"legend": _LEGEND, "tooltip": {"mode": "single"}, "mergeValues": True, "rowHeight": 0.8, "showValue": "auto"}


def _heatmap_options(panel: Panel) -> dict[str, Any]:
    return {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange"},
        "yAxis": {"axisPlacement": "left", "unit": panel.unit},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": False},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
    }


def _table_options(panel: Panel) -> dict[str, Any]:
    return {"showHeader": True, "cellHeight": "sm", "footer": {"show": False, "reducer": ["sum"], "fields": ""}}


_OPTIONS = {
    Kind.STAT: _stat_options,
    Kind.LINES: _line_options,
    Kind.STATES: _state_options,
    Kind.HEATMAP: _heatmap_options,
    Kind.TABLE: _table_options,
}
