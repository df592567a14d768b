"""`slmops list`, `show`, `rm`, `alias` and `lineage`: which models there are, and which version a name means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.configuration import settings_from
from server.cli.failures import MISUSED, CommandFailed
from server.cli.terminal import Wide, console, print_json, print_line, print_table, size, tokens
from server.inference.fine_tuned_names import as_registered

if TYPE_CHECKING:
    from rich.tree import Tree


AsJson = Annotated[bool, typer.Option("--json", help="As JSON, with stable keys.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name.", callback=as_registered)]

_COLUMNS = ("MODEL", "ALIASES", "PRECISION", "SIZE>", "CONTEXT>", "LICENCE", "CREATED")
_LEAST = ("LICENCE", "CREATED", "CONTEXT", "PRECISION", "ALIASES")


def list_models(as_json: AsJson = False, wide: Wide = False) -> None:
    """List the installed models, one line per version."""
    from server.cli.registry_access import open_registry_access

    with open_registry_access(settings_from()) as registry:
        models = registry.models()
    if as_json:
        print_json(models)
    elif models:
        print_table(_COLUMNS, [row for model in models for row in _rows(model)], least=_LEAST, wide=wide)
    else:
        print_line("no models yet; `slmops catalog` shows some, `slmops pull NAME` fetches one")


def _rows(model: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            version["label"],
            ", ".join(name for name, number in model["aliases"].items() if number == version["number"]) or "-",
            ", ".join(variant["precision"] for variant in version["variants"] if variant["role"] == "serve") or "-",
            size(version["size_bytes"]),
            tokens(version["context_length"]),
            version["licence"],
            version["created_at"][:16].replace("T", " "),
        )
        for version in model["versions"]
    ]


def show(model: ModelName, as_json: AsJson = False) -> None:
    """Show where a model came from, what was measured of it, and its files. MODEL:VERSION shows one version."""
    from server.cli.description import outline
    from server.cli.registry_access import open_registry_access

    with open_registry_access(settings_from()) as registry:
        found = registry.show(model)
    if as_json:
        print_json(found)
        return
    for line in outline(found):
        print_line(line)


def remove(
    model: Annotated[str, typer.Argument(metavar="MODEL[:VERSION]", help="A model, or a version of it.", callback=as_registered)],
    force: Annotated[bool, typer.Option("--force", help="Even when an alias points to it or it is loaded.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a model or one version, unless it is loaded or an alias points to it."""
    from server.cli.registry_access import open_registry_access

    with open_registry_access(settings_from()) as registry:
        gone = registry.remove(model, force=force)
    if as_json:
        print_json(gone)
    else:
        print_line(f"removed {', '.join(gone['removed'])}; {size(gone['freed_bytes'])} freed")


def alias(
    version: Annotated[str, typer.Argument(metavar="MODEL:VERSION", help="A number or another alias, e.g. `previous`.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The alias; by default `live`.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias MODEL:ALIAS; its version stays.")] = False,
    as_json: AsJson = False,
) -> None:
    """Point an alias to a version; `live` is what the bare name means. `slmops alias MODEL:previous` rolls its last change back."""
    from server.cli.registry_access import open_registry_access

    model, _, tag = version.partition(":")
    if remove and (name is not None or not tag):
        raise CommandFailed("--remove takes the alias to remove and nothing else: slmops alias --remove MODEL:ALIAS", MISUSED)
    with open_registry_access(settings_from()) as registry:
        changed = registry.remove_alias(model, tag) if remove else registry.set_alias(version, name or "live")
    if as_json:
        print_json(changed)
    elif remove:
        print_line(f"{changed['id']} is removed")
    else:
        print_line(f"{changed['model']}:{changed['alias']} is now {changed['model']}:{changed['version']}")


def lineage(model: ModelName, as_json: AsJson = False) -> None:
    """Draw what a model was made from and by, and what was made from it."""
    from server.cli.registry_access import open_registry_access

    with open_registry_access(settings_from()) as registry:
        tree = registry.lineage(model)
    if as_json:
        print_json(tree)
    else:
        console().print(_drawn(tree))


def _drawn(node: Mapping[str, Any]) -> Tree:
    from datetime import UTC, datetime

    from rich.text import Text
    from rich.tree import Tree

    created = datetime.fromtimestamp(node["created_at"], UTC)
    title = Text(node["label"], "bold green" if node["asked"] else "bold")
    title.append(f"  {node['importer']}, {size(node['size_bytes'])}, {created:%Y-%m-%d %H:%M}", "not bold default")
    facts = [f"from {node['source']}"]
    if node["data_sha256"]:
        facts.append(f"data sha256 {node['data_sha256'][:12]}")
    facts += [f"{name} {value:.4g}" for name, value in node["metrics"].items() if value is not None]
    tree = Tree(Text("\n").join([title, Text("\n".join(facts), "dim")]))
    for child in node["children"]:
        tree.children.append(_drawn(child))
    return tree
