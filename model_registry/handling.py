"""How what a reference names is treated on its way in, where that differs from a plain pull. Values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from model_registry.builds import BuildRequest, Trial
from model_registry.progress import Progress

Prepare = Callable[[Path, Path, Progress], Path]


@dataclass(frozen=True, slots=True)
class Handling:
    """builds: what the version is made of, the preferred first; none: one build, by the registry's own importers.

    prepare: (what was fetched, an empty folder, progress) -> what is imported; None: as it was fetched.
    wants_checkpoint: of a hub repository that also holds other forms of the model, the checkpoint is taken.
    allow_pickle: a checkpoint of the hub may be pickles, where it has nothing else.
    trial: (an imported folder, what it is) -> None once a model was loaded from it, else why that was not tried. Raises
    UnloadableModel, and then nothing is published. None: it is published untried.
    requested: what else was asked for, as JSON values; kept in the manifest, so that the same wish finds the version again.
    libraries: installed packages whose versions the manifest tells beside the registry's own.
    """

    builds: tuple[BuildRequest, ...] = ()
    prepare: Prepare | None = None
    wants_checkpoint: bool = False
    allow_pickle: bool = False
    trial: Trial | None = None
    requested: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    libraries: tuple[str, ...] = ()


PLAIN = Handling()
