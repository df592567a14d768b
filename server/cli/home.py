"""The home of the settings, opened without a daemon, with its limits and with everybody who keeps files in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model_registry.registry import Registry
    from server.settings.daemon import Settings


@contextlib.contextmanager
def open_home(settings: Settings, *, create: bool = True) -> Iterator[Registry]:
    """create: whether a home that is missing is made; without it, there is nothing to read in one. Raises RegistryError."""
    from model_registry.database import Database
    from model_registry.disk_space.spare import keep_spare
    from server.storage.storage import registry_of

    with Database(settings.home) as database:
        if create:
            database.open()
            keep_spare(settings.home)
        yield registry_of(database, settings.disk_limits())
