"""`slmops lineage`: the family tree of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from server.cli.configuration import settings_from
from server.cli.models import AsJson, ModelName
from server.cli.terminal import console, print_json, size

if TYPE_CHECKING:
    from rich.tree import Tree

    from model_registry.lineage import Lineage


def lineage(model: ModelName, as_json: AsJson = False) -> None:
    """Draw what a model was made from and by, and what was made from it."""
    from model_registry.lineage import lineage_of
    from model_registry.registry import open_registry
    from server.cli.description import describe_version

    with open_registry(settings_from().home) as registry:
        version = registry.resolve(model)
        tree = lineage_of(registry.models(), version)
    if as_json:
        print_json(_described(tree, describe_version))
    else:
        console().print(_drawn(tree, version.label))


def _described(tree: Lineage, describe: Any) -> dict[str, Any]:
    return {**describe(tree.version), "children": [_described(child, describe) for child in tree.children]}


def _drawn(lineage: Lineage, asked: str) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    version, manifest = lineage.version, lineage.version.manifest
    title = Text(version.label, "bold green" if version.label == asked else "bold")
    title.append(f"  {manifest.importer}, {size(version.size_bytes)}, {version.created_at:%Y-%m-%d %H:%M}", "not bold default")
    facts = [f"from {manifest.source}"]
    if manifest.data_sha256:
        facts.append(f"data sha256 {manifest.data_sha256[:12]}")
    facts += [f"{name} {value:.4g}" for name, value in manifest.metrics.items()]
    tree = Tree(Text("\n").join([title, Text("\n".join(facts), "dim")]))
    for child in lineage.children:
        tree.children.append(_drawn(child, asked))
    return tree
