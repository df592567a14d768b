"""The environment of processes that the daemon starts: its own, less its secrets, set up to run the same code."""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[1])
_SECRETS = frozenset({"SLMOPS_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})


def child_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    paths = [_ROOT, *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
