"""The models in a cache folder of Foundry Local, read from the disk alone. Knows neither the SDK nor the network.

    <cache>/<publisher>/<name>-<version>/[<build>/]   genai_config.json, inference_model.json, and the model
    <cache>/foundry.modelinfo.json                    the catalog's entries of its models when it was last read

The SDK itself lists nothing when the catalog is out of reach, though its models are all here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_registry.disk import tree_bytes
from model_registry.errors import CorruptModel
from model_registry.text_files import read_object

CACHE_VARIABLE = "SLMOPS_FOUNDRY_CACHE"
_CONFIG, _NAME, _UNFINISHED, _CATALOG = "genai_config.json", "inference_model.json", "download.tmp", "foundry.modelinfo.json"


@dataclass(frozen=True, slots=True)
class FoundryVariant:
    """A model of the catalog, built for one device. id: `<name>:<version>`; device: `cpu`, `gpu`, `npu`.

    alias: what its variants have in common. folder: its folder on this disk, None if it is not there.
    """

    id: str
    alias: str
    device: str
    size_bytes: int | None = None
    licence: str | None = None
    folder: Path | None = None

    @property
    def name(self) -> str:
        return self.id.rpartition(":")[0]

    @property
    def version(self) -> int:
        return int(self.id.rpartition(":")[2])


def cache_folder() -> Path:
    """SLMOPS_FOUNDRY_CACHE, else where Foundry Local keeps its models."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".foundry" / "cache" / "models"


def cached_variants(cache: Path) -> list[FoundryVariant]:
    """The whole models in the folder, sorted by id. The catalog's last entries fill in what the folders lack."""
    known = {str(each.get("id")): each for each in _read(cache / _CATALOG).get("models") or [] if isinstance(each, dict)}
    found = {}
    for config in cache.glob(f"*/**/{_CONFIG}"):
        folder = config.parent
        model_id = _model_id(folder)
        if model_id and not any((parent / _UNFINISHED).exists() for parent in (folder, folder.parent)):
            found[model_id] = _variant(model_id, folder, known.get(model_id, {}))
    return [found[model_id] for model_id in sorted(found)]


def choose(variants: Iterable[FoundryVariant], wanted: str) -> FoundryVariant | None:
    """The variant that an id, a name without its version, or an alias means: of several the one for the CPU, then the newest.

    Every engine serves what is built for the CPU; another device's build is had by its id.
    """
    meant = [each for each in variants if wanted in (each.id, each.name, each.alias)]
    return max(meant, key=lambda each: (each.device == "cpu", each.version), default=None)


def _model_id(folder: Path) -> str | None:
    """The id that the download wrote; a model that was copied there by hand may have no version."""
    name = _read(folder / _NAME).get("Name")
    if not isinstance(name, str):
        return None
    return next((each for each in (name, f"{name}:0") if is_model_id(each)), None)


def is_model_id(text: str) -> bool:
    """Whether it is `<name>:<version>`."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}:[0-9]{1,9}", text) is not None


def _variant(model_id: str, folder: Path, known: dict[str, Any]) -> FoundryVariant:
    name = model_id.rpartition(":")[0]
    runtime = known.get("runtime")
    device = str(runtime.get("deviceType", "")) if isinstance(runtime, dict) else ""
    licence = known.get("license")
    return FoundryVariant(
        id=model_id,
        alias=str(known.get("alias") or name),
        device=device.lower() or device_in(name),
        size_bytes=tree_bytes(folder),
        licence=licence if isinstance(licence, str) else None,
        folder=folder,
    )


def device_in(name: str) -> str:
    """Names end in the device: `phi-4-mini-instruct-generic-cpu`."""
    last = name.rpartition("-")[2].lower()
    return last if last in ("cpu", "gpu", "npu") else "cpu"


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty when there is none that can be read, since the folder is not ours."""
    try:
        return read_object(path) if path.is_file() else {}
    except (OSError, CorruptModel):
        return {}
