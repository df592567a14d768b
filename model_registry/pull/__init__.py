"""From a reference to a published version. From outside, what is listed in `__all__` is used."""

from __future__ import annotations

from model_registry.pull.fetching import refetched, source_to_refetch
from model_registry.pull.options import PullOptions, PullPlan, plan_pull
from model_registry.pull.run import LOADING, PUBLISHING, PullRun, pull

__all__ = [
    "LOADING",
    "PUBLISHING",
    "PullOptions",
    "PullPlan",
    "PullRun",
    "plan_pull",
    "pull",
    "refetched",
    "source_to_refetch",
]
