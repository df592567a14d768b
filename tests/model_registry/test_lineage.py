"""The family tree of versions: ancestors, descendants, what was removed, and what cannot be."""

from __future__ import annotations

from datetime import UTC, datetime

from model_registry.lineage import Lineage, lineage_of
from model_registry.records import Manifest, Model, ModelVersion

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def model(name: str, *parents: str | None) -> Model:
    versions = tuple(
        ModelVersion(name, number, f"{name}{number}", NOW, Manifest("test", "test", "llama", 64, parent=parent), ())
        for number, parent in enumerate(parents, 1)
    )
    return Model(name, NOW, versions, ())


def outline(tree: Lineage) -> str:
    below = ",".join(outline(child) for child in tree.children)
    return f"{tree.version.label}({below})" if below else tree.version.label


def test_the_tree_is_the_same_from_whichever_version_it_is_requested() -> None:
    models = [model("base", None), model("tuned", "base:1", "base:1"), model("small", "tuned:2"), model("other", None)]
    for each in (models[0].versions[0], models[1].versions[0], models[2].versions[0]):
        assert outline(lineage_of(models, each)) == "base:1(tuned:1,tuned:2(small:1))"
    assert outline(lineage_of(models, models[3].versions[0])) == "other:1"


def test_an_ancestor_that_was_removed_ends_the_climb() -> None:
    tuned = model("tuned", "gone:1")
    assert outline(lineage_of([tuned], tuned.versions[0])) == "tuned:1"


def test_versions_that_name_one_another_end() -> None:
    circle = [model("a", "b:1"), model("b", "a:1")]
    assert outline(lineage_of(circle, circle[0].versions[0])) == "b:1(a:1)"
