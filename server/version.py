"""The version of slmops, from its package metadata."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def slmops_version() -> str:
    """E.g. `0.1.0`; `0+unknown` when run from a folder that was never installed."""
    try:
        return metadata.version("slmops")
    except metadata.PackageNotFoundError:
        return "0+unknown"
