"""Which job a command means: by its id, by the beginning of one, or, where none is named, the one that is going on."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import typer

from server.cli.failures import MISUSED, CommandFailed
from server.cli.terminal import print_note

if TYPE_CHECKING:
    from server.cli.daemon import Daemon

PIPELINE = "pipe-"
_JOB = "job-"
_WHOLE = re.compile(r"(job|pipe)-[0-9a-f]{12}")
_PAGE = 1000
_UNFINISHED = ("running", "queued", "interrupted", "paused")
_MAX_NAMED = 5  # ids in a message


def whole_id(daemon: Daemon, text: str) -> str:
    """The id that the text is, or begins. Raises CommandFailed when it begins several; what begins none is returned as it is."""
    if _WHOLE.fullmatch(text):
        return text
    beginnings = (text, f"{_JOB}{text}", f"{PIPELINE}{text}")
    ids = {id_ for job in _jobs(daemon) for id_ in (job["id"], job["pipeline"]) if id_ is not None}
    found = sorted(id_ for id_ in ids if id_.startswith(beginnings))
    if len(found) > 1:
        shown = ", ".join(found[:_MAX_NAMED]) + (f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else "")
        raise CommandFailed(f"{text} begins several ids: {shown}; write more of the one that is meant", MISUSED)
    return found[0] if found else text


def newest(daemon: Daemon, text: str | None) -> str:
    """The id that the text means; without a text, the newest job that runs, else that waits, else that has ended."""
    if text is not None:
        return whole_id(daemon, text)
    jobs = next(_pages(daemon))
    if not jobs:
        raise CommandFailed("no jobs; `slmops jobs create` makes one")
    by_status = {status: job for status in _UNFINISHED for job in reversed(jobs) if job["status"] == status}
    chosen = next((by_status[status] for status in _UNFINISHED if status in by_status), jobs[0])
    print_note(f"{chosen['id']} ({_described(chosen)})")
    return str(chosen["id"])


def the_only(daemon: Daemon, text: str | None, statuses: Collection[str], *, confirm: str | None = None) -> str:
    """The id that the text means; without a text, the one job with such a status. Raises CommandFailed when there are several.

    confirm: what would be done to it, for which a person is then asked; a program has to name the job.
    """
    if text is not None:
        return whole_id(daemon, text)
    found = [job for job in _jobs(daemon) if job["status"] in statuses]
    if not found:
        raise CommandFailed(f"no job is {' or '.join(statuses)}; `slmops jobs list` shows all")
    named = ", ".join(f"{job['id']} ({_described(job)})" for job in found[:_MAX_NAMED])
    if len(found) > 1:
        raise CommandFailed(f"name a JOB, for there are several: {named}", MISUSED)
    if confirm is not None and not sys.stdin.isatty():
        raise CommandFailed(f"name the JOB to {confirm}: {named}", MISUSED)
    if confirm is not None and not typer.confirm(f"{confirm.capitalize()} {named}?", err=True):
        raise CommandFailed("nothing was done")
    return str(found[0]["id"])


def _described(job: dict[str, Any]) -> str:
    step = f", step {job['metadata']['step']!r}" if job["pipeline"] and "step" in job["metadata"] else ""
    return f"{job['kind']}{step}, {job['status']}"


def _jobs(daemon: Daemon) -> Iterator[dict[str, Any]]:
    for page in _pages(daemon):
        yield from page


def _pages(daemon: Daemon) -> Iterator[list[dict[str, Any]]]:
    """All jobs, the newest first."""
    after = ""
    while True:
        answer = daemon.call("GET", f"/admin/jobs?limit={_PAGE}{after}")
        yield answer["data"]
        if not answer["has_more"]:
            return
        after = f"&after={answer['data'][-1]['id']}"
