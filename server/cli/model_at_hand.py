"""Makes sure that the model which the settings name is on disk, before anything serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from server.cli.configuration import settings_from
from server.cli.failures import CommandFailed

if TYPE_CHECKING:
    from server.settings import Settings


def settings_with_model(**flags: Any) -> Settings:
    """The settings of these flags, naming a model that the registry has: a missing one is pulled, with a progress bar.

    `model` may be a reference (a catalog name, `hf://...`, a path); the settings then name the model that it became.
    The fake engine needs no model on disk.
    """
    from model_registry.errors import InvalidName, InvalidReference, ModelNotFound
    from model_registry.registry import open_registry
    from server.cli.pull import pull_with_bar

    settings = settings_from(**flags)
    if settings.engine == "fake":
        return settings
    with open_registry(settings.home) as registry:
        try:
            registry.resolve(settings.model)
            return settings
        except (ModelNotFound, InvalidName, InvalidReference) as error:
            if settings.offline:
                raise CommandFailed(
                    f"model {settings.model!r} is not here and `offline` is set; run `slmops pull` while online"
                ) from error
        pulled = pull_with_bar(registry, settings.model)
    return settings_from(**flags | {"model": pulled.model})
