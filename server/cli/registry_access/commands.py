"""What can be done with a registry, wherever it is. Values are JSON with the keys that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from model_registry.progress import Progress

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PullOrder:
    """What to pull. reference: as `parse_reference` reads it. name: of the model; None: after the reference.

    precision: a value of `Precision`. trial: whether the model is loaded once before it is published.
    """

    reference: str
    name: str | None = None
    precision: str = "auto"
    trial: bool = True


class RegistryCommands(Protocol):
    """Raises RegistryError or CommandFailed; both hold what happened and what to do.

    A model's name is taken without regard to case where only one model can be meant. A label is `name`, `name:NUMBER` or
    `name:alias`.
    """

    @property
    def home(self) -> str:
        """The home that is read and changed, as a path on its machine."""

    def models(self) -> list[Json]:
        """All models, by name, as `describe_model` has them."""

    def show(self, label: str) -> Json:
        """A model, for a bare name; else one version."""

    def remove(self, label: str, *, force: bool = False) -> Json:
        """Removes a model, for a bare name; else one version. Returns `removed` (labels) and `freed_bytes`."""

    def set_alias(self, label: str, alias: str) -> Json:
        """Points an alias to the version that the label means. Returns `model`, `alias`, `version` (a number), `weight`."""

    def remove_alias(self, model: str, alias: str) -> Json:
        """The version stays. Returns `id` (`model:alias`) and `deleted`."""

    def verify(self, label: str) -> Json:
        """Compares the files of one version with their checksums. Returns `version` (a label) and `problems`."""

    def collect_garbage(self) -> int:
        """Deletes files that no version needs. Returns the bytes freed."""

    def lineage(self, label: str) -> Json:
        """The tree of a version, from its first ancestor that is still registered; each with its `children`."""

    def catalog(self) -> list[Json]:
        """The models that can be pulled by a short name, and what of them is installed."""

    def pull(self, order: PullOrder, progress: Progress) -> Json:
        """Returns the version, found or published. KeyboardInterrupt stops the pull, which can be resumed by the same order."""

    def start_pull(self, order: PullOrder) -> str:
        """Starts a pull that goes on without this process. Returns its id."""
