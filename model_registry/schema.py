"""The tables of the registry database. Knows nothing about files or queries; `migrations` made them."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import overload

from sqlalchemy import JSON, Column, DateTime, Float, ForeignKey, Integer, MetaData, String, Table, UniqueConstraint

HEAD = "0005"  # the newest revision in `migrations/versions`; a test holds the two together

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Subject(StrEnum):
    """What is kept in memory as a snapshot. Each has a count that every change of its tables raises."""

    MODELS = "models"  # models, versions, variants, artifacts, aliases, adapters
    KEYS = "keys"  # api_keys


change_counts = Table(
    "change_counts",
    metadata,
    Column("subject", String, primary_key=True),  # a Subject
    Column("number", Integer, nullable=False),  # raised by each transaction that changes its tables
)

models = Table(
    "models",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("created_at", DateTime, nullable=False),  # UTC
    Column("next_number", Integer, nullable=False),  # numbers are never used twice while the model exists
)

versions = Table(
    "versions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", String, nullable=False),
    Column("created_at", DateTime, nullable=False),  # UTC
    Column("manifest", JSON, nullable=False),
    UniqueConstraint("model_id", "number"),
    UniqueConstraint("model_id", "digest"),
)

variants = Table(
    "variants",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), nullable=False),
    Column("name", String, nullable=False),
    Column("precision", String, nullable=False),
    Column("provider_family", String, nullable=False),
    Column("role", String, nullable=False, server_default="serve"),
    Column("graph", String),  # NULL where the role is not `serve`
    UniqueConstraint("version_id", "name"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("variant_id", ForeignKey("variants.id", ondelete="CASCADE"), nullable=False),
    Column("path", String, nullable=False),
    Column("sha256", String, nullable=False, index=True),
    Column("size_bytes", Integer, nullable=False),
    UniqueConstraint("variant_id", "path"),
)

aliases = Table(
    "aliases",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("name", String, nullable=False),
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), nullable=False),
    Column("weight", Float, nullable=False),
    UniqueConstraint("model_id", "name"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("status", String, nullable=False, index=True),
    Column("params", JSON, nullable=False),
    Column("needs", JSON, nullable=False),
    Column("pipeline", String),
    Column("metadata", JSON, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("created_at", DateTime, nullable=False),  # UTC, as all times
    Column("started_at", DateTime),
    Column("ended_at", DateTime),
    Column("progress", JSON, nullable=False),
    Column("plan", JSON),
    Column("outcome", JSON),
    Column("failure", JSON),
    Column("owner", String),  # id of the principal that created it; NULL before there were keys
)

job_events = Table(
    "job_events",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at", DateTime, nullable=False),
    Column("type", String, nullable=False),
    Column("level", String, nullable=False),
    Column("message", String, nullable=False),
    Column("data", JSON, nullable=False),
)

files = Table(
    "files",
    metadata,
    Column("id", String, primary_key=True),
    Column("purpose", String, nullable=False),
    Column("filename", String, nullable=False),
    Column("sha256", String, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("expires_at", DateTime),
    Column("owner", String),  # as of jobs
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("digest", String, nullable=False, unique=True),  # SHA-256 of the secret, in hexadecimal; the secret is kept nowhere
    Column("scopes", JSON, nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("expires_at", DateTime),
    Column("revoked_at", DateTime),
)

adapters = Table(
    "adapters",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("base_id", ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("name", String, nullable=False),
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), nullable=False),
    UniqueConstraint("base_id", "name"),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", String, nullable=False, index=True),  # a label; kept also when the version is gone
    Column("kind", String, nullable=False),
    Column("job", String),
    Column("created_at", DateTime, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("details", JSON, nullable=False),
)


@overload
def to_column(at: datetime) -> datetime: ...
@overload
def to_column(at: datetime | None) -> datetime | None: ...
def to_column(at: datetime | None) -> datetime | None:
    """A time as columns hold it: UTC, without its zone. at: with its zone."""
    return None if at is None else at.astimezone(UTC).replace(tzinfo=None)


@overload
def from_column(at: datetime) -> datetime: ...
@overload
def from_column(at: datetime | None) -> datetime | None: ...
def from_column(at: datetime | None) -> datetime | None:
    """A column's time with its zone, UTC."""
    return None if at is None else at.replace(tzinfo=UTC)
