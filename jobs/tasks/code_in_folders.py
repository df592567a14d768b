"""Whether a model's folder brings code, or weights that can hold code: looked for before a library reads the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_MOST_BYTES = 64 << 20  # of a configuration, beyond which it is none


def code_in(folder: Path) -> str | None:
    """What in a checkpoint's folder could run code when transformers reads it, as a part of a sentence; None for nothing."""
    if (folder / "MLmodel").exists():
        return "is a package of MLflow, which names loaders"
    if not any(folder.glob("*.safetensors")) and (pickles := sorted(each for kind in _PICKLES for each in folder.glob(kind))):
        return f"has its weights as pickles ({pickles[0].name})"
    for path in sorted(folder.glob("*.json")):
        if path.stat().st_size <= _MOST_BYTES and _names_code(path):
            return f"names Python code to be run ({path.name}, `auto_map`)"
    return None


def _names_code(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        return False  # no library can read it either, and says so
    return _has_auto_map(content)


def _has_auto_map(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value.get("auto_map")) or any(_has_auto_map(each) for each in value.values())
    return isinstance(value, list) and any(_has_auto_map(each) for each in value)
