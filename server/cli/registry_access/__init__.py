"""Where registry commands act: at a running daemon, or on the home of this process. Knows nothing of terminals."""

from __future__ import annotations

from server.cli.registry_access.choice import open_registry_access
from server.cli.registry_access.commands import PullOrder, RegistryCommands

__all__ = ["PullOrder", "RegistryCommands", "open_registry_access"]
