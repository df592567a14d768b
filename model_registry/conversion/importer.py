"""What an importer is: the contract between `pull` and what turns a foreign format into a folder an engine loads.

Owns the words, no behaviour. Knows nothing about sources, the database, or any format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from model_registry.conversion.quantizers.recipe import Recipe
from model_registry.progress import Progress
from model_registry.records import DECODER, Capability, GraphKind, Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The operator's options.

    precision: `AUTO` lets the importer choose; an importer that cannot produce it raises UnsupportedModel.

    measure: whether to measure quality (perplexity of source and import), which takes seconds.
    recipe: how each matrix is rounded, instead of precision; only for importers that round.
    calibration: token ids [tokens] of each text that guides the rounding; by default of the text that slmops ships.
    may_link: the files of `path` are ours and will not change, so they may be hard-linked instead of copied.
    """

    precision: Precision = Precision.AUTO
    measure: bool = True
    may_link: bool = False
    recipe: Recipe | None = None
    calibration: Sequence[NDArray[np.int64]] = ()


@dataclass(frozen=True, slots=True)
class Imported:
    """What was written. precision: never `AUTO`. provider_family: a provider's short name (`cpu`, `cuda`, ...).

    parameters: what the importer decided, e.g. {"precision": "int8", "block_size": 32}; JSON values only.
    metrics: what was measured, e.g. {"perplexity": 29.37}. licence: SPDX, None if the format has none.
    warnings: what is wrong with the model and only limits it, in whole sentences.
    capabilities: what the model allows, whichever engine loads it.
    """

    architecture: str
    context_length: int
    precision: Precision
    provider_family: str = "cpu"
    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    licence: str | None = None
    warnings: tuple[str, ...] = ()
    graph: GraphKind = GraphKind.GQA
    capabilities: frozenset[Capability] = DECODER


@runtime_checkable
class Importer(Protocol):
    """One foreign format. Stateless: an instance may be used for any number of imports."""

    @property
    def name(self) -> str:
        """How the manifest names it, e.g. `gguf`."""

    def can_import(self, path: Path) -> bool:
        """Whether `path` (a file or a folder) is of this format, by a look at names and magic bytes; raises nothing."""

    def run(self, path: Path, destination: Path, options: ImportOptions, progress: Progress) -> Imported:
        """Write a folder that an engine can load into `destination`, which exists and is empty; never touch `path`.

        Raises CorruptModel (damaged input) or UnsupportedModel (sound input, but not ours), both with a remedy.
        A failed run may leave files in `destination`; the caller discards it.
        """
