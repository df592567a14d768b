"""`slmops list`, `show`, `rm`, `alias` and `lineage`: the models on this machine, and which version a name means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.configuration import settings_from
from server.cli.terminal import console, print_json, print_line, print_table, size
from server.inference.fine_tuned_names import as_registered

if TYPE_CHECKING:
    from rich.tree import Tree

    from model_registry.lineage import Lineage
    from model_registry.records import Model
    from server.settings.daemon import Settings


AsJson = Annotated[bool, typer.Option("--json", help="As JSON, with stable keys.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name.", callback=as_registered)]


def list_models(as_json: AsJson = False) -> None:
    """List the models on this machine, one line per version."""
    from model_registry.description import describe_model
    from model_registry.registry import open_registry

    with open_registry(settings_from().home) as registry:
        models = registry.models()
    if as_json:
        print_json([describe_model(model) for model in models])
        return
    if not models:
        print_line("no models yet; `slmops catalog` shows some, `slmops pull NAME` fetches one")
        return
    print_table(
        ("MODEL", "ALIASES", "PRECISION", "SIZE>", "CONTEXT>", "LICENCE", "CREATED"),
        [row for model in models for row in _rows(model)],
    )


def _rows(model: Model) -> list[tuple[str, ...]]:
    return [
        (
            version.label,
            ", ".join(alias.name for alias in model.aliases if alias.number == version.number) or "-",
            ", ".join(build.precision.value for build in version.builds) or "-",
            size(version.size_bytes),
            str(version.manifest.context_length),
            version.manifest.licence,
            f"{version.created_at:%Y-%m-%d %H:%M}",
        )
        for version in model.versions
    ]


def show(model: ModelName, as_json: AsJson = False) -> None:
    """Show where a model came from, what was measured of it, and its files. MODEL:VERSION shows one version."""
    from model_registry.description import describe_model, describe_version
    from model_registry.registry import open_registry

    with open_registry(settings_from().home) as registry:
        is_version = ":" in model
        found = describe_version(registry.resolve(model)) if is_version else describe_model(registry.model(model))
    if as_json:
        print_json(found)
        return
    from server.cli.description import outline

    for line in outline(found):
        print_line(line)


def remove(
    model: Annotated[str, typer.Argument(metavar="MODEL[:VERSION]", help="A model, or a version of it.", callback=as_registered)],
    force: Annotated[bool, typer.Option("--force", help="Even when an alias points to it or it is loaded.")] = False,
) -> None:
    """Remove a model or one version, unless it is loaded or an alias points to it."""
    from model_registry.registry import open_registry

    settings = settings_from()
    with open_registry(settings.home) as registry:
        freed = registry.remove(model, force=force, in_use=_loaded_labels(settings))
    print_line(f"removed {model}; {size(freed)} freed")


def _loaded_labels(settings: Settings) -> frozenset[str]:
    """The labels that a running daemon has in memory; none when no daemon runs."""
    from server.cli.daemon import Daemon

    with Daemon.configured(settings) as daemon:
        return frozenset(str(row["id"]) for row in daemon.loaded()) if daemon.is_running() else frozenset()


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


def lineage(model: ModelName, as_json: AsJson = False) -> None:
    """Draw what a model was made from and by, and what was made from it."""
    from model_registry.description import describe_version
    from model_registry.lineage import lineage_of
    from model_registry.registry import open_registry

    with open_registry(settings_from().home) as registry:
        version = registry.resolve(model)
        tree = lineage_of(registry.models(), version)
    if as_json:
        print_json(_described(tree, describe_version))
    else:
        console().print(_drawn(tree, version.label))


def _described(tree: Lineage, describe: Any) -> dict[str, Any]:
    return {**describe(tree.version), "children": [_described(child, describe) for child in tree.children]}


def _drawn(lineage: Lineage, requested: str) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    version, manifest = lineage.version, lineage.version.manifest
    title = Text(version.label, "bold green" if version.label == requested else "bold")
    title.append(f"  {manifest.importer}, {size(version.size_bytes)}, {version.created_at:%Y-%m-%d %H:%M}", "not bold default")
    facts = [f"from {manifest.source}"]
    if manifest.data_sha256:
        facts.append(f"data sha256 {manifest.data_sha256[:12]}")
    facts += [f"{name} {value:.4g}" for name, value in manifest.metrics.items()]
    tree = Tree(Text("\n").join([title, Text("\n".join(facts), "dim")]))
    for child in lineage.children:
        tree.children.append(_drawn(child, requested))
    return tree
