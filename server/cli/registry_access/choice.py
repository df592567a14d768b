"""Which registry a command uses: that of the daemon which answers at the configured address, else this process's home."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from server.cli.registry_access.commands import RegistryCommands

if TYPE_CHECKING:
    from server.settings.daemon import Settings


@contextmanager
def open_registry_access(settings: Settings) -> Iterator[RegistryCommands]:
    """Yields the registry of the settings' home."""
    from model_registry.registry import open_registry
    from server.cli.registry_access.direct import DirectRegistry

    with open_registry(settings.home) as registry:
        yield DirectRegistry(registry, offline=settings.offline)
