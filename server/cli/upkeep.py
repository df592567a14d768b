"""`slmops verify` and `slmops gc`: is what is on disk what it should be, and what may go."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from server.cli.configuration import settings_from
from server.cli.failures import CommandFailed
from server.cli.models import AsJson
from server.cli.terminal import print_json, print_line, size


def verify(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="All models when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare every file of a model with its checksum. Exit code 1 when one differs."""
    from model_registry.registry import open_registry

    with open_registry(settings_from().home) as registry:
        names = [model] if model else [version.label for found in registry.models() for version in found.versions]
        problems = {name: registry.verify(name) for name in names}
    if as_json:
        print_json({name: [asdict(problem) for problem in found] for name, found in problems.items()})
    else:
        for name, found in problems.items():
            print_line(f"{name}: {'damaged' if found else 'ok'}")
            for problem in found:
                print_line(f"  {problem.path}: {problem.message}")
    broken = [name for name, found in problems.items() if found]
    if broken:
        raise CommandFailed(f"{', '.join(broken)} is damaged; run `slmops rm --force`, then pull it again")


def collect_garbage(as_json: AsJson = False) -> None:
    """Delete files that no version needs: of removed models, and of pulls that were cut off."""
    from model_registry.registry import open_registry

    with open_registry(settings_from().home) as registry:
        freed = registry.collect_garbage()
    if as_json:
        print_json({"freed_bytes": freed})
    else:
        print_line(f"{size(freed)} freed")
