"""Jobs and their events as rows of the home's database. The only file of this package that knows SQL.

Every method waits for the disk, and those that write for other writers of the database: an event loop calls none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import msgspec
from sqlalchemy import RowMapping, func, insert, select, update
from sqlalchemy import delete as delete_from

from jobs.job import Failure, Job, JobEvent, JobStatus, Progress
from jobs.task import JobKind, Outcome, Plan
from model_registry.database import Database
from model_registry.disk_space.spare import room_to_delete
from model_registry.schema import from_column, job_events, jobs, to_column

_UNFINISHED = [status for status in JobStatus if not status.is_final]


class JobStore:
    """The jobs of a home. Thread safe. Raises RegistryBusy, OutOfDisk, NotWritable."""

    def __init__(self, database: Database) -> None:
        self.home = database.home
        self._database = database

    def exists(self) -> bool:
        """Whether anything can have been stored yet."""
        return self._database.exists()

    def insert(self, new: Sequence[Job], events: Sequence[JobEvent] = ()) -> None:
        with self._database.writing() as connection:
            connection.execute(insert(jobs), [_row(job) for job in new])
            if events:
                connection.execute(insert(job_events), [_event_row(event) for event in events])

    def save(self, job: Job, events: Sequence[JobEvent] = ()) -> None:
        """The job as it is now, and what happened to it."""
        row = _row(job)
        with self._database.writing() as connection:
            connection.execute(update(jobs).where(jobs.c.id == row.pop("id")).values(**row))
            if events:
                connection.execute(insert(job_events), [_event_row(event) for event in events])

    def delete(self, job: str) -> None:
        """Works on a full disk."""
        with room_to_delete(self.home), self._database.writing() as connection:
            connection.execute(delete_from(jobs).where(jobs.c.id == job))

    def job(self, id_: str) -> Job | None:
        if not self.exists():
            return None
        with self._database.reading() as reader:
            row = reader.execute(select(jobs).where(jobs.c.id == id_)).mappings().first()
        return None if row is None else _job(row)

    def counts(self) -> dict[tuple[str, str], int]:
        """How many jobs there are of each kind and status."""
        if not self.exists():
            return {}
        query = select(jobs.c.kind, jobs.c.status, func.count()).group_by(jobs.c.kind, jobs.c.status)
        with self._database.reading() as reader:
            return {(kind, status): count for kind, status, count in reader.execute(query)}

    def unfinished(self) -> list[Job]:
        if not self.exists():
            return []
        with self._database.reading() as reader:
            rows = reader.execute(select(jobs).where(jobs.c.status.in_(_UNFINISHED))).mappings().all()
        return [_job(row) for row in rows]

    def find(
        self,
        *,
        kind: JobKind | None = None,
        status: JobStatus | None = None,
        pipeline: str | None = None,
        owner: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[Job]:
        """Newest first; after: those older than this job."""
        if not self.exists():
            return []
        query = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        wanted = ((jobs.c.kind, kind), (jobs.c.status, status), (jobs.c.pipeline, pipeline), (jobs.c.owner, owner))
        for column, value in wanted:
            query = query if value is None else query.where(column == str(value))
        with self._database.reading() as reader:
            if after is not None:
                last = reader.execute(select(jobs.c.created_at).where(jobs.c.id == after)).scalar()
                older = (jobs.c.created_at < last) | ((jobs.c.created_at == last) & (jobs.c.id < after))
                query = query.where(older)
            return [_job(row) for row in reader.execute(query).mappings()]

    def events(self, job: str, after: int = 0, limit: int = 1000) -> list[JobEvent]:
        """The events with a number above `after`, in order."""
        query = select(job_events).where(job_events.c.job_id == job, job_events.c.number > after)
        with self._database.reading() as reader:
            return [_event(row) for row in reader.execute(query.order_by(job_events.c.number).limit(limit)).mappings()]

    def last_number(self, job: str) -> int:
        with self._database.reading() as reader:
            return reader.execute(select(func.max(job_events.c.number)).where(job_events.c.job_id == job)).scalar() or 0


def _row(job: Job) -> dict[str, Any]:
    row = {name: getattr(job, name) for name in jobs.c.keys()}  # noqa: SIM118 - columns, not a dict
    for name in ("created_at", "started_at", "ended_at"):
        row[name] = to_column(row[name])
    return row | {
        "kind": str(job.kind),
        "status": str(job.status),
        "params": _plain(job.params),
        "needs": list(job.needs),
        "metadata": dict(job.metadata),
        "progress": _plain(job.progress),
        "plan": _plain(job.plan),
        "outcome": _plain(job.outcome),
        "failure": _plain(job.failure),
    }


def _job(row: RowMapping) -> Job:
    fields = dict(row)
    return Job(
        **fields
        | {
            "kind": JobKind(row["kind"]),
            "status": JobStatus(row["status"]),
            "needs": tuple(row["needs"]),
            "created_at": from_column(row["created_at"]),
            "started_at": from_column(row["started_at"]),
            "ended_at": from_column(row["ended_at"]),
            "progress": msgspec.convert(row["progress"], Progress),
            "plan": msgspec.convert(row["plan"], Plan | None),
            "outcome": msgspec.convert(row["outcome"], Outcome | None),
            "failure": msgspec.convert(row["failure"], Failure | None),
        }
    )


def _event_row(event: JobEvent) -> dict[str, Any]:
    row = {**asdict(replace(event, data={})), "data": _plain(event.data), "at": to_column(event.at)}
    return row | {"job_id": row.pop("job")}


def _event(row: RowMapping) -> JobEvent:
    fields = dict(row)
    return JobEvent(job=fields.pop("job_id"), **fields | {"at": from_column(row["at"])})


def _plain(value: object) -> Any:
    """Converts a value to JSON types: dataclasses and mappings to objects, tuples to lists."""
    return msgspec.to_builtins(dict(value) if isinstance(value, Mapping) else value)
