"""The page of the kinds of jobs: the params of each, from their JSON Schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from docs.generators import markdown, schemas
from jobs.task import JobKind
from jobs.tasks.kinds import task_for

INTRODUCTION = """\
The params of each kind of job, for `slmops jobs create KIND -p NAME=VALUE` and `POST /admin/jobs`. `slmops jobs kinds KIND` prints
the same. A text `@JOB` stands for the version that another job makes, `file-...` for an upload. How jobs are created, watched and
paused is described in [Jobs](../tune/jobs.md), what the kinds are for in the pages under *Fine-tune*."""

WITH_ROUTES = {"pull": "Pulls are created by `slmops pull` and `POST /admin/registry/pulls`, not by `POST /admin/jobs`."}


def page() -> str:
    return markdown.page("Kinds of jobs", INTRODUCTION, *(part for kind in JobKind for part in _kind(kind)))


def _kind(kind: JobKind) -> Iterator[str]:
    schema = task_for(kind).params.model_json_schema()
    yield f"## `{kind.value}`"
    yield str(schema.get("description", ""))
    yield WITH_ROUTES.get(kind.value, "")
    for example in schema.get("examples", ()):
        yield f"```json\n{json.dumps({'kind': kind.value, 'params': example}, indent=2, ensure_ascii=False)}\n```"
    known = schema.get("$defs", {})
    yield _relinked(schemas.fields(schema, known), kind)
    for name in schemas.reachable([schema], known):
        yield f"### {name} of {kind.value}"
        yield markdown.sentence(schemas.introduction(known[name]))
        yield _relinked(schemas.fields(known[name], known), kind)


def _relinked(text: str, kind: JobKind) -> str:
    """Links to objects lead to those of this kind."""
    return re.sub(r"\]\(#(\w+)\)", rf"](#\1-of-{kind.value})", text)
