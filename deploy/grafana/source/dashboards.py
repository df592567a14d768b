"""The dashboards there are, the first one to be opened first."""

from __future__ import annotations

from deploy.grafana.source.jobs import JOBS
from deploy.grafana.source.models import MODELS
from deploy.grafana.source.overview import OVERVIEW

DASHBOARDS = (OVERVIEW, MODELS, JOBS)
