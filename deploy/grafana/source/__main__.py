"""Writes the dashboards' JSON files."""

from __future__ import annotations

from deploy.grafana.source.dashboard import FOLDER, written
from deploy.grafana.source.dashboards import DASHBOARDS

FOLDER.mkdir(exist_ok=True)
for dashboard in DASHBOARDS:
    (FOLDER / dashboard.file_name).write_text(written(dashboard), encoding="utf-8")
