"""How what a reference names is treated on its way in, where that differs from a plain pull. Values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from model_registry.conversion.importer import Imported, Importer
from model_registry.progress import Progress

Prepare = Callable[[Path, Path, Progress], Path]
Trial = Callable[[Path, Imported], str | None]


@dataclass(frozen=True, slots=True)
class Handling:
    """importers: asked in this order, the first that can imports; None: the registry's own.

    prepare: (what was fetched, an empty folder, progress) -> what is imported; None: as it was fetched.
    wants_checkpoint: of a hub repository that also holds other forms of the model, the checkpoint is taken.
    allow_pickle: a checkpoint of the hub may be pickles, where it has nothing else.
    trial: (an imported folder, what it is) -> None once a model was loaded from it, else why that was not tried. Raises
    UnloadableModel, and then nothing is published. None: it is published untried.
    requested: what else was asked for, as JSON values; kept in the manifest, so that the same wish finds the version again.
    libraries: installed packages whose versions the manifest tells beside the registry's own.
    """

    importers: tuple[Importer, ...] | None = None
    prepare: Prepare | None = None
    wants_checkpoint: bool = False
    allow_pickle: bool = False
    trial: Trial | None = None
    requested: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    libraries: tuple[str, ...] = ()


PLAIN = Handling()
