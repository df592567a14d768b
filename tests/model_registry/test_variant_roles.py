"""Variants of a home whose provider families were roles: nothing is lost, and no version becomes another."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

import model_registry
from model_registry.aliases import folder_of
from model_registry.artifacts import StagedVariant
from model_registry.records import ANY_PROVIDER, DECODER, GraphKind, Precision, VariantRole
from model_registry.registry import open_registry


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Models `tuned` (a build, a checkpoint and an adapter, which is attached to `tiny`) and `other` (a graph of another kind)."""
    home = tmp_path / "home"
    home.mkdir()
    with closing(sqlite3.connect(home / "registry.db")) as connection:
        dump = Path(__file__).parent / "homes/tuned_0003.sql"
        connection.executescript(dump.read_text(encoding="utf-8"))
    return home


def test_provider_families_that_were_roles_become_roles(home: Path) -> None:
    with open_registry(home) as registry:
        tuned, other = registry.resolve("tuned"), registry.resolve("other")
        assert registry.model("tiny").adapters[0].version == tuned.label
    assert [(each.name, each.role, each.provider_family, each.graph) for each in tuned.variants] == [
        ("cpu-int8", VariantRole.SERVE, "cpu", GraphKind.GQA),
        ("checkpoint-fp32", VariantRole.CHECKPOINT, ANY_PROVIDER, None),
        ("adapter-fp32", VariantRole.ADAPTER, ANY_PROVIDER, None),
    ]
    assert tuned.builds == tuned.variants[:1]
    assert tuned.manifest.capabilities == DECODER
    assert folder_of(tuned) == home / "models/tuned/1/adapter-fp32"
    assert [(each.provider_family, each.graph) for each in other.builds] == [("cuda", GraphKind.OTHER)]


def test_content_that_an_earlier_release_published_is_still_the_same_version(home: Path, tmp_path: Path) -> None:
    folders = {}
    for name in ("cpu", "checkpoint", "adapter"):
        folders[name] = tmp_path / "again" / name
        folders[name].mkdir(parents=True)
        (folders[name] / "weights").write_text(f"weights {name}")
    variants = [
        StagedVariant(Precision.INT8, "cpu", folders["cpu"]),
        StagedVariant.checkpoint(folders["checkpoint"]),
        StagedVariant.adapter(folders["adapter"]),
    ]
    with open_registry(home) as registry:
        before = registry.resolve("tuned")
        again = registry.publish("tuned", before.manifest, variants)
        assert (again.label, again.digest) == ("tuned:1", before.digest)
        assert registry.verify("tuned:1") == ()


def test_the_migration_can_be_taken_back(home: Path) -> None:
    columns = "SELECT name, provider_family FROM variants ORDER BY id"

    def rows() -> list[tuple[str, str]]:
        with closing(sqlite3.connect(home / "registry.db")) as connection:
            return list(connection.execute(columns))

    before = rows()
    with open_registry(home) as registry:
        registry.models()
    engine = create_engine(f"sqlite:///{home / 'registry.db'}")
    config = Config()
    config.set_main_option("script_location", str(Path(model_registry.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0003")
    engine.dispose()
    assert rows() == before
