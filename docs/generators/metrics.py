"""The page of metrics, from the descriptions in the code."""

from __future__ import annotations


def page() -> str:
    return ""
