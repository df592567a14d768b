"""Which reference pages there are, and what writes each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from docs.generators import cli, errors, http, job_kinds, metrics, settings

FOLDER = Path(__file__).parents[1] / "reference"
PAGES: Mapping[str, Callable[[], str]] = {
    "cli.md": cli.page,
    "http.md": http.page,
    "errors.md": errors.page,
    "settings.md": settings.page,
    "metrics.md": metrics.page,
    "job-kinds.md": job_kinds.page,
}
