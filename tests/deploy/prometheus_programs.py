"""Debian's prometheus and promtool: where they are, or why a test that needs one is skipped."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

PROMETHEUS = Path(__file__).parents[2] / "deploy/prometheus"


def program(name: str) -> str:
    """name: `prometheus` or `promtool`. Skips the test where it is not installed."""
    unpacked = Path(sys.prefix) / "prometheus/usr/bin" / name
    found = shutil.which(name) or (str(unpacked) if unpacked.exists() else None)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install prometheus (or make test, which unpacks it into .venv)")
    return found
