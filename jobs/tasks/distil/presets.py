"""What suits a kind of task, as defaults of a distillation. Data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LABEL: Mapping[str, Any] = {"samples": 1, "temperature": 0.0, "max_tokens": 16, "filters": {"max_chars": 80}}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # open answers: several ways to say it, none like another
    "conversation": {"samples": 2, "temperature": 0.7, "max_tokens": 256, "filters": {"min_chars": 8, "near_duplicates": 0.8}},
    # short facts: the answer that most samples give
    "qa": {"samples": 3, "temperature": 0.5, "max_tokens": 64, "filters": {"agreement": 0.5, "max_chars": 400}},
    # one label, greedily
    "classification": _LABEL,
    # whether one sentence follows from another: a label too
    "nli": _LABEL,
    # self-consistency over the last number (https://arxiv.org/abs/2203.11171)
    "math": {"samples": 5, "temperature": 0.7, "max_tokens": 384, "filters": {"agreement": 0.4, "pattern": r"\d"}},
    "summarization": {"samples": 1, "temperature": 0.3, "max_tokens": 200, "filters": {"min_chars": 40, "near_duplicates": 0.7}},
    "tools": {"samples": 1, "temperature": 0.0, "max_tokens": 200, "filters": {}},
}
METRICS: Mapping[str, tuple[str, ...]] = {
    "conversation": ("f1", "chrf"),
    "qa": ("exact_match", "f1"),
    "classification": ("accuracy",),
    "nli": ("accuracy",),
    "math": ("last_number",),
    "summarization": ("rouge_l", "chrf"),
    "tools": ("tool_call_match",),
}
