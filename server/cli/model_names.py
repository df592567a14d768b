"""The names that a command may give a model: those that are installed where it acts, and those that can be pulled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_registry.name_matching import same_label

if TYPE_CHECKING:
    from server.cli.daemon import Daemon
    from server.settings.daemon import Settings


_OLLAMAS_LIVE = ":latest"  # what a bare name means here


@dataclass(frozen=True, slots=True)
class ModelNames:
    """installed: what requests may name, adapters (`model:adapter`) among them. catalogue: what can be pulled by name."""

    installed: tuple[str, ...]
    catalogue: tuple[str, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """The installed models, without their adapters."""
        return tuple(name for name in self.installed if ":" not in name or name.startswith("ft:"))

    def installed_label(self, text: str) -> str | None:
        """The name, `name:NUMBER`, `name:alias` or `name:adapter` as requests write it; None when no such model is installed."""
        if text in self.installed:
            return text
        label = same_label(text, self.models).removesuffix(_OLLAMAS_LIVE)
        return label if label.partition(":")[0] in self.models else None


def names_at(daemon: Daemon) -> ModelNames:
    return ModelNames(daemon.model_names(), _catalogue())


def names_in(settings: Settings) -> ModelNames:
    """Of the home of the settings, or of the fake engine."""
    if settings.engine == "fake":
        return ModelNames((settings.model, *settings.models), _catalogue())
    from server.cli.registry_access import open_registry_access

    with open_registry_access(settings) as registry:
        return ModelNames(tuple(str(model["name"]) for model in registry.models()), _catalogue())


def _catalogue() -> tuple[str, ...]:
    from model_registry.catalog import load_catalog

    return tuple(entry.name for entry in load_catalog().entries)
