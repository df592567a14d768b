"""`slmops foundry`: the models of Foundry Local's catalog, those that are cached on this machine first of all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from server.cli.configuration import settings_from
from server.cli.models import AsJson
from server.cli.terminal import print_json, print_line, print_note, print_table, size

if TYPE_CHECKING:
    from model_registry.sources.foundry_cache import FoundryVariant


def commands() -> typer.Typer:
    """A new group of commands."""
    group = typer.Typer(help="Models of Foundry Local's catalog.", no_args_is_help=True)
    group.command("list")(list_models)
    return group


def list_models(as_json: AsJson = False) -> None:
    """List the models that `slmops pull foundry://ALIAS` knows, one line per device they are built for."""
    from model_registry.sources.foundry import list_foundry

    listing = list_foundry(offline=settings_from().offline)
    if listing.missing:
        print_note(listing.missing)
    if as_json:
        print_json([_described(variant) for variant in listing.variants])
        return
    if not listing.variants:
        print_line("no model is cached")
        return
    print_table(
        ("ALIAS", "ID", "DEVICE", "SIZE>", "LICENCE", "CACHED"),
        [
            (
                variant.alias,
                variant.id,
                variant.device,
                "-" if variant.size_bytes is None else size(variant.size_bytes),
                variant.licence or "-",
                "yes" if variant.folder else "no",
            )
            for variant in listing.variants
        ],
    )


def _described(variant: FoundryVariant) -> dict[str, object]:
    return {
        "alias": variant.alias,
        "id": variant.id,
        "device": variant.device,
        "size_bytes": variant.size_bytes,
        "licence": variant.licence,
        "cached": variant.folder is not None,
        "folder": str(variant.folder) if variant.folder else None,
    }
