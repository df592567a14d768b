"""Rows of a backup's database: which leave it when it is made, and which are added to a home when it is put back.

What a home has already is never changed: a row is added only where its home has none with the same key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select

from model_registry.database import Database
from model_registry.schema import Subject, api_keys, evaluations, files, job_events, jobs

Row = Mapping[str, Any]
_SAME_EVALUATION = ("version", "kind", "job", "created_at")


@dataclass(frozen=True, slots=True)
class Upload:
    id: str
    sha256: str
    size_bytes: int


def uploads(database: Database) -> list[Upload]:
    with database.reading() as reader:
        return [Upload(row.id, row.sha256, row.size_bytes) for row in reader.execute(select(files))]


def job_ids(database: Database) -> list[str]:
    with database.reading() as reader:
        return list(reader.execute(select(jobs.c.id).order_by(jobs.c.id)).scalars())


def has_keys(database: Database) -> bool:
    with database.reading() as reader:
        return reader.execute(select(api_keys.c.id)).first() is not None


def drop_uploads(copy: Database, ids: Collection[str]) -> None:
    with copy.writing() as connection:
        connection.execute(delete(files).where(files.c.id.in_(ids)))


def drop_unfinished_jobs(copy: Database) -> list[str]:
    """Their ids. They cannot go on elsewhere: their checkpoints change while they are copied."""
    with copy.writing() as connection:
        unfinished = list(connection.execute(select(jobs.c.id).where(jobs.c.ended_at.is_(None)).order_by(jobs.c.id)).scalars())
        connection.execute(delete(jobs).where(jobs.c.id.in_(unfinished)))
    return unfinished


def drop_jobs(copy: Database) -> None:
    with copy.writing() as connection:
        connection.execute(delete(jobs).where(jobs.c.ended_at.is_not(None)))


@dataclass(frozen=True, slots=True)
class Saved:
    """The rows of a backup that may be put back."""

    uploads: Sequence[Row]
    jobs: Sequence[Row]
    events: Sequence[Row]
    evaluations: Sequence[Row]
    keys: Sequence[Row]


def saved_rows(copy: Database) -> Saved:
    with copy.reading() as reader:

        def of(table: Table) -> list[Row]:
            return [dict(row) for row in reader.execute(select(table)).mappings()]

        return Saved(of(files), of(jobs), of(job_events), of(evaluations), of(api_keys))


def missing_uploads(database: Database, saved: Saved) -> list[Row]:
    with database.reading() as reader:
        return _missing(reader, files, saved.uploads)


def missing_jobs(database: Database, saved: Saved) -> list[Row]:
    with database.reading() as reader:
        return _missing(reader, jobs, saved.jobs)


def add_uploads(database: Database, added: Sequence[Row]) -> None:
    _add(database, [(files, added)])


def add_jobs(database: Database, added: Sequence[Row], events: Sequence[Row]) -> None:
    ids = {row["id"] for row in added}
    _add(database, [(jobs, added), (job_events, [event for event in events if event["job_id"] in ids])])


def add_evaluations(database: Database, saved: Saved, label_of: Callable[[str], str | None]) -> int:
    """label_of: the label that a saved label has here, None to leave its evaluations out. How many were added."""
    labelled = [(row, label_of(row["version"])) for row in saved.evaluations]
    wanted = [{**row, "version": label} for row, label in labelled if label is not None]
    with database.writing() as connection:
        columns = [evaluations.c[name] for name in _SAME_EVALUATION]
        present = {tuple(row) for row in connection.execute(select(*columns))}
        added = [row for row in wanted if tuple(row[name] for name in _SAME_EVALUATION) not in present]
        if added:
            connection.execute(insert(evaluations), [{name: row[name] for name in row if name != "id"} for row in added])
    return len(added)


def add_keys(database: Database, saved: Saved) -> int:
    """How many were added. A key that was revoked since stays revoked."""
    with database.writing(Subject.KEYS) as connection:
        added = _missing(connection, api_keys, saved.keys)
        if added:
            connection.execute(insert(api_keys), added)
    return len(added)


def _missing(connection: Connection, table: Table, saved: Sequence[Row]) -> list[Row]:
    present = set(connection.execute(select(table.c.id)).scalars())
    return [row for row in saved if row["id"] not in present]


def _add(database: Database, added: Sequence[tuple[Table, Sequence[Row]]]) -> None:
    """In one transaction."""
    with database.writing() as connection:
        for table, new in added:
            if new:
                connection.execute(insert(table), list(new))
