"""Rows to records and back. Knows the tables and the records; no files, no locks, no decisions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, delete, insert, select, update

from model_registry.artifacts import ArtifactStore, DescribedVariant
from model_registry.records import (
    Alias,
    Artifact,
    Attachment,
    Capability,
    GraphKind,
    Manifest,
    Model,
    ModelVersion,
    Precision,
    Variant,
    VariantRole,
)
from model_registry.schema import adapters, aliases, artifacts, from_column, models, to_column, variants, versions


def load_models(connection: Connection, store: ArtifactStore) -> dict[str, Model]:
    """Everything, by name, in six statements; small by nature (thousands of rows at most)."""
    artifacts_of = _grouped(connection, artifacts, "variant_id")
    variants_of = _grouped(connection, variants, "version_id")
    versions_of = _grouped(connection, versions, "model_id")
    aliases_of = _grouped(connection, aliases, "model_id")
    adapters_of = _grouped(connection, adapters, "base_id")
    labels = _labels(connection) if adapters_of else {}
    loaded: dict[str, Model] = {}
    for row in connection.execute(select(models).order_by(models.c.name)).mappings():
        name = str(row["name"])
        rows = sorted(versions_of[row["id"]], key=lambda version: int(version["number"]))
        built = [
            _version(name, version, [_variant(v, artifacts_of[v["id"]], folder) for v in variants_of[version["id"]]])
            for version in rows
            for folder in (store.version_folder(name, int(version["number"])),)
        ]
        number_of = {version["id"]: int(version["number"]) for version in rows}
        pointers = [
            Alias(name, str(alias["name"]), number_of[alias["version_id"]], float(alias["weight"]))
            for alias in sorted(aliases_of[row["id"]], key=lambda alias: str(alias["name"]))
        ]
        attached = [
            Attachment(name, str(each["name"]), labels[each["version_id"]])
            for each in sorted(adapters_of[row["id"]], key=lambda each: str(each["name"]))
        ]
        loaded[name] = Model(name, from_column(row["created_at"]), tuple(built), tuple(pointers), tuple(attached))
    return loaded


def next_number(connection: Connection, model: str) -> int:
    """The number that the next version of `model` gets; 1 for a new model."""
    number = connection.execute(select(models.c.next_number).where(models.c.name == model)).scalar()
    return 1 if number is None else int(number)


def reserve_numbers(connection: Connection, model: str, number: int) -> None:
    """Versions of `model`, which exists, get numbers from `number` on; numbers that were used are never used again."""
    connection.execute(update(models).where(models.c.name == model, models.c.next_number < number).values(next_number=number))


def insert_version(
    connection: Connection,
    model: str,
    number: int,
    digest: str,
    manifest: Manifest,
    described: Sequence[DescribedVariant],
    created_at: datetime | None = None,
) -> None:
    """created_at: None for now."""
    now = to_column(created_at or datetime.now(UTC))
    model_id = connection.execute(select(models.c.id).where(models.c.name == model)).scalar()
    if model_id is None:
        model_id = _insert(connection, models, name=model, created_at=now, next_number=number)
    reserve_numbers(connection, model, number + 1)
    version_id = _insert(
        connection,
        versions,
        model_id=model_id,
        number=number,
        digest=digest,
        created_at=now,
        manifest=_manifest_json(manifest),
    )
    for variant in described:
        staged = variant.staged
        variant_id = _insert(
            connection,
            variants,
            version_id=version_id,
            name=staged.name,
            precision=staged.precision.value,
            provider_family=staged.provider_family,
            role=staged.role.value,
            graph=None if staged.graph is None else staged.graph.value,
        )
        rows = [asdict(artifact) | {"variant_id": variant_id} for artifact in variant.artifacts]
        connection.execute(insert(artifacts), rows)


def replace_aliases(connection: Connection, model: str, pointers: Sequence[Alias]) -> None:
    """The aliases of `model` are exactly these after this; each points to an existing version."""
    model_id = connection.execute(select(models.c.id).where(models.c.name == model)).scalar_one()
    connection.execute(delete(aliases).where(aliases.c.model_id == model_id))
    rows = select(versions.c.number, versions.c.id).where(versions.c.model_id == model_id)
    id_of = {int(row.number): row.id for row in connection.execute(rows)}
    for alias in pointers:
        _insert(connection, aliases, model_id=model_id, name=alias.name, version_id=id_of[alias.number], weight=alias.weight)


def insert_attachment(connection: Connection, attached: Attachment) -> None:
    """Both models exist; the name is free."""
    base_id = connection.execute(select(models.c.id).where(models.c.name == attached.model)).scalar_one()
    version_id = next(key for key, label in _labels(connection).items() if label == attached.version)
    _insert(connection, adapters, base_id=base_id, name=attached.name, version_id=version_id)


def delete_attachment(connection: Connection, attached: Attachment) -> None:
    base_id = select(models.c.id).where(models.c.name == attached.model).scalar_subquery()
    connection.execute(delete(adapters).where(adapters.c.base_id == base_id, adapters.c.name == attached.name))


def delete_model(connection: Connection, model: str) -> None:
    connection.execute(delete(models).where(models.c.name == model))


def delete_version(connection: Connection, model: str, number: int) -> None:
    model_id = select(models.c.id).where(models.c.name == model).scalar_subquery()
    connection.execute(delete(versions).where(versions.c.model_id == model_id, versions.c.number == number))


def referenced_blobs(connection: Connection) -> set[str]:
    return {str(sha256) for sha256 in connection.execute(select(artifacts.c.sha256).distinct()).scalars()}


def _grouped(connection: Connection, table: Table, key: str) -> defaultdict[Any, list[RowMapping]]:
    """The table's rows by that column, each list in the order in which the rows were inserted."""
    grouped: defaultdict[Any, list[RowMapping]] = defaultdict(list)
    for row in connection.execute(select(table).order_by(table.c.id)).mappings():
        grouped[row[key]].append(row)
    return grouped


def _labels(connection: Connection) -> dict[int, str]:
    """The label of every version, by its key."""
    rows = select(versions.c.id, versions.c.number, models.c.name).join(models, models.c.id == versions.c.model_id)
    return {int(row.id): f"{row.name}:{row.number}" for row in connection.execute(rows)}


def _insert(connection: Connection, table: Table, **values: Any) -> int:
    key = connection.execute(insert(table).values(**values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def _version(model: str, row: RowMapping, built: list[Variant]) -> ModelVersion:
    return ModelVersion(
        model=model,
        number=int(row["number"]),
        digest=str(row["digest"]),
        created_at=from_column(row["created_at"]),
        manifest=_manifest(row["manifest"]),
        variants=tuple(built),
    )


def _variant(row: RowMapping, files: Sequence[RowMapping], version_folder: Path) -> Variant:
    found = [Artifact(str(file["path"]), str(file["sha256"]), int(file["size_bytes"])) for file in files]
    return Variant(
        name=str(row["name"]),
        precision=Precision(row["precision"]),
        provider_family=str(row["provider_family"]),
        folder=version_folder / str(row["name"]),
        artifacts=tuple(sorted(found, key=lambda artifact: artifact.path)),
        role=VariantRole(row["role"]),
        graph=None if row["graph"] is None else GraphKind(row["graph"]),
    )


def _manifest_json(manifest: Manifest) -> dict[str, Any]:
    values = {field.name: getattr(manifest, field.name) for field in fields(manifest)}
    plain = {name: dict(value) if hasattr(value, "items") else value for name, value in values.items()}
    return plain | {"capabilities": sorted(manifest.capabilities)}


def _manifest(values: dict[str, Any]) -> Manifest:
    """Fields and capabilities that a later slmops added are left out; a field that is missing takes its default."""
    known = {field.name for field in fields(Manifest)}
    kept = {name: value for name, value in values.items() if name in known}
    if "capabilities" in kept:
        kept["capabilities"] = frozenset(each for each in Capability if each in kept["capabilities"])
    frozen = {name: MappingProxyType(value) for name, value in kept.items() if isinstance(value, dict)}
    warnings = tuple(map(str, kept.get("warnings") or ()))
    return Manifest(**{**kept, **frozen, "warnings": warnings})
