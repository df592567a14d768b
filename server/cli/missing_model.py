"""What happens when a command names a model that is not installed: it is pulled after a question, or the command says how to.

The same with a daemon and without one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.failures import CommandFailed
from server.cli.model_names import ModelNames
from server.cli.terminal import is_at_terminal, size

if TYPE_CHECKING:
    from server.settings.daemon import Settings

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Pull a missing model without asking.")]


def ensure_installed(model: str, names: ModelNames, settings: Settings, *, assume_yes: bool) -> str:
    """The name under which requests find the model, which is pulled first if it is missing. Raises CommandFailed."""
    from server.inference.fine_tuned_names import as_registered

    label = names.installed_label(model) or names.installed_label(as_registered(model))
    if label is not None:
        return label
    reference, num_bytes = _find(model, names)
    if settings.offline:
        raise CommandFailed(
            f"model {model!r} is not on this machine and `offline` is set; run `slmops pull {reference}` while online"
        )
    if not assume_yes:
        _ask(reference, num_bytes)
    return _pull(reference, settings)


def _find(model: str, names: ModelNames) -> tuple[str, int | None]:
    """The reference to pull, and the bytes of its download where they are known. Raises CommandFailed when there is none."""
    from model_registry.catalog import load_catalog
    from model_registry.errors import InvalidReference
    from model_registry.name_matching import did_you_mean
    from model_registry.references import CatalogReference, parse_reference

    try:
        reference = parse_reference(model)
        if not isinstance(reference, CatalogReference):
            return model, None
        catalogue = load_catalog()
        entry = catalogue.entry(reference)
        variant = None if reference.variant in (None, "latest") else reference.variant
        return str(CatalogReference(entry.name, variant)), entry.build(variant).download_bytes
    except InvalidReference as error:
        meant = did_you_mean(model, [*names.models, *names.catalogue])
        installed = ", ".join(names.models) or "none"
        raise CommandFailed(
            f"model {model!r} not found. Installed: {installed}.{meant} `slmops catalog` lists what can be pulled."
        ) from error


def _ask(reference: str, num_bytes: int | None) -> None:
    """Asks at a terminal. Raises CommandFailed unless the answer is yes."""
    amount = "it" if num_bytes is None else size(num_bytes)
    missing = f"{reference} is not on this machine"
    how = f"run `slmops pull {reference}`, or add --yes"
    if not (is_at_terminal(sys.stdin) and is_at_terminal(sys.stderr)):
        raise CommandFailed(f"{missing}; {how}")
    sys.stderr.write(f"{missing}. Pull {amount}? [Y/n] ")
    sys.stderr.flush()
    if sys.stdin.readline().lower() not in ("\n", "y\n", "yes\n"):  # the end of input is no answer
        raise CommandFailed(f"{missing}, and was not pulled; to use it, {how}")


def _pull(reference: str, settings: Settings) -> str:
    from server.cli.progress import ProgressBar
    from server.cli.registry_access import PullOrder, open_registry_access

    with open_registry_access(settings) as registry, ProgressBar() as bar:
        return str(registry.pull(PullOrder(reference), bar)["model"])
