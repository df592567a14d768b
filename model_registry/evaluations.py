"""Evaluation results of versions, kept also when a version is gone: rows of the registry's database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping, insert, select

from model_registry.database import Database
from model_registry.schema import evaluations, from_column, to_column


@dataclass(frozen=True, slots=True)
class Evaluation:
    """version: a label, or the name of an endpoint's model. kind: evaluate or benchmark. details: JSON values."""

    version: str
    kind: str
    metrics: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)
    job: str | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class EvaluationStore:
    """The evaluations of a home. Thread safe. Raises as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, *kept: Evaluation) -> None:
        """Adds evaluations in this order, the newest last. Replaces earlier ones of the same jobs."""
        with self._database.writing() as connection:
            for job in {each.job for each in kept} - {None}:
                connection.execute(evaluations.delete().where(evaluations.c.job == job))
            connection.execute(insert(evaluations), [_row(each) for each in kept])

    def of(self, version: str, kind: str | None = None) -> list[Evaluation]:
        """The newest first. version: a label; a bare name means all of its versions."""
        if not self._database.exists():
            return []
        query = select(evaluations).order_by(evaluations.c.id.desc())
        if ":" in version:
            query = query.where(evaluations.c.version == version)
        else:
            of_name = evaluations.c.version.startswith(f"{version}:", autoescape=True)
            query = query.where((evaluations.c.version == version) | of_name)
        if kind is not None:
            query = query.where(evaluations.c.kind == kind)
        with self._database.reading() as reader:
            return [_evaluation(row) for row in reader.execute(query).mappings()]


def _row(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "version": evaluation.version,
        "kind": evaluation.kind,
        "job": evaluation.job,
        "created_at": to_column(evaluation.created_at),
        "metrics": dict(evaluation.metrics),
        "details": dict(evaluation.details),
    }


def _evaluation(row: RowMapping) -> Evaluation:
    created = from_column(row["created_at"])
    return Evaluation(row["version"], row["kind"], row["metrics"], row["details"], row["job"], created)
