"""A dashboard: rows of panels, laid out from left to right, with the variables and links that all dashboards share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.grafana.source.panel import DATASOURCE, Panel, as_json

FOLDER = Path(__file__).parents[1] / "dashboards"
DAEMONS = 'job=~"$job",instance=~"$instance"'  # what selects series of the chosen daemons
OF_MODELS = f'{DAEMONS},model_name=~"$model_name"'  # and of the chosen models
_COLUMNS = 24


def events(counter: str, by: str, where: str, window: str = "$__rate_interval") -> str:
    """How often something happened within the window, by labels. Counts also what made the series: it begins at 1, not at 0."""
    series = f"{counter}{{{where}}}"
    return f"sum by ({by}) (({series} unless {series} offset {window}) or increase({series}[{window}]))"


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """uid: in its address, so never changed."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]

    @property
    def file_name(self) -> str:
        return f"{self.uid}.json"


def written(dashboard: Dashboard) -> str:
    """As Grafana imports and provisions it."""
    content = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["slmops"],
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "",
        "templating": {"list": list(_variables())},
        "annotations": {"list": [_restarts()]},
        "links": [_LINK],
        "panels": list(_placed(dashboard.rows)),
    }
    return json.dumps(content, indent=2) + "\n"


def _placed(rows: tuple[Row, ...]) -> Iterator[dict[str, Any]]:
    """Panels from left to right; a new line where the next one does not fit."""
    id_, top = 0, 0
    for row in rows:
        id_ += 1
        place = {"h": 1, "w": _COLUMNS, "x": 0, "y": top}
        yield {"id": id_, "type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": place}
        top, left, height = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > _COLUMNS:
                top, left, height = top + height, 0, 0
            id_ += 1
            yield as_json(panel, id_, {"h": panel.height, "w": panel.width, "x": left, "y": top})
            left, height = left + panel.width, max(height, panel.height)
        top += height


_LINK = {
    "type": "dashboards",
    "title": "slmops",
    "tags": ["slmops"],
    "asDropdown": False,
    "includeVars": True,
    "keepTime": True,
    "targetBlank": False,
}


def _variables() -> Iterator[dict[str, Any]]:
    shown = {"hide": 0, "options": [], "current": {}, "skipUrlSync": False}
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    yield {**source, "includeAll": False, "multi": False, "refresh": 1, "regex": "", **shown}
    for name, label, series, all_value in (
        ("job", "Scrape job", "slmops_build_info", None),
        ("instance", "Daemon", 'slmops_build_info{job=~"$job"}', None),
        ("model_name", "Model", f"vllm:request_success_total{{{DAEMONS}}}", ".*"),
    ):
        definition = f"label_values({series}, {name})"
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": DATASOURCE,
            "definition": definition,
            "query": {"query": definition, "refId": name},
            "includeAll": True,
            "allValue": all_value,
            "multi": True,
            "refresh": 2,  # also when the time range changes: models and daemons come and go
            "regex": "",
            "sort": 1,
            **shown,
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }


def _restarts() -> dict[str, Any]:
    """Marks in every panel: most changes of a curve are a new version, or a daemon that died."""
    return {
        "name": "Starts of a daemon",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "purple",
        "expr": f"changes(process_start_time_seconds{{{DAEMONS}}}[1m]) > 0",
        "titleFormat": "slmops started",
        "textFormat": "{{instance}}",
        "step": "1m",
    }
