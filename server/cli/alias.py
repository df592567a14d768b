"""`slmops alias`: which version a name means; how a version is rolled out, and rolled back."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.configuration import settings_from
from server.cli.terminal import print_line


def alias(
    version: Annotated[str, typer.Argument(metavar="MODEL:VERSION", help="A number or another alias, e.g. `previous`.")],
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The alias; `live` is what the bare name means.")] = "live",
) -> None:
    """Point an alias to a version. `slmops alias MODEL:previous` rolls the last change of `live` back."""
    from model_registry.registry import open_registry

    with open_registry(settings_from().home) as registry:
        found = registry.resolve(version)
        moved = registry.set_alias(found.model, name, found.number)
    print_line(f"{moved.model}:{moved.name} is now {found.label}")
