"""`slmops jobs ...` and `slmops pipeline`: work that the daemon does beside serving."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import typer

from server.cli import job_description
from server.cli.configuration import settings_from
from server.cli.description import print_plan
from server.cli.failures import MISUSED, CommandFailed
from server.cli.job_kinds import kinds
from server.cli.job_reference import PIPELINE, newest, the_only, whole_id
from server.cli.job_request import JOB_FIELDS, PIPELINE_FIELDS, STEP_FIELDS, check_fields, kind_named, params_of, read_file
from server.cli.models import AsJson
from server.cli.terminal import print_json, print_line, print_note, print_table, write_foreign

if TYPE_CHECKING:
    from jobs.task import JobKind
    from server.cli.daemon import Daemon

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or its beginning.")]
AnyJob = Annotated[str | None, typer.Argument(metavar="[JOB]", help="A job's id, or its beginning; by default the newest.")]
OneJob = Annotated[str | None, typer.Argument(metavar="[JOB]", help="A job's id, or its beginning; by default the only one.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end.")]
_UNFINISHED = ("running", "queued", "interrupted", "paused")


def commands() -> typer.Typer:
    app = typer.Typer(help="Quantize, tune, evaluate: work that the daemon does beside serving.", no_args_is_help=True)
    named = (
        ("create", create),
        ("list", list_jobs),
        ("show", show),
        ("watch", watch),
        ("log", log),
        ("cancel", cancel),
        ("pause", pause),
        ("resume", resume),
        ("rm", remove),
        ("kinds", kinds),
    )
    for name, command in named:
        app.command(name)(command)
    return app


def create(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="As `slmops jobs kinds` lists them.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="VALUE: a text, JSON, or a list as a,b; local data is uploaded."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "--file", "-c", help="A YAML, TOML or JSON file with kind and params; flags go before it."),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the plan and create no job.")] = False,
    follow: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Create a job; what cannot work is refused before it is queued."""
    from server.cli.job_files import missing_files, with_files

    known, body = _requested(kind, param or (), config)
    with _daemon() as daemon:
        if daemon.is_here and (missing := missing_files(known, body["params"])):
            raise CommandFailed("\n".join(missing), MISUSED)
        body["params"] = with_files(daemon, known, body["params"], settings_from().jobs.data_roots)
        if dry_run:
            print_plan(daemon.call("POST", "/admin/job-plans", {name: body[name] for name in ("kind", "params")}), as_json)
            return
        job = daemon.call("POST", "/admin/jobs", body)
        _begun(daemon, job, [job], follow, as_json)


def pipeline(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A YAML, TOML or JSON file with steps.")],
    follow: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Create a chain of jobs: all of them, or none when one cannot work."""
    from server.cli.job_files import missing_files, with_files

    chain, found = _requested_steps(file)
    with _daemon() as daemon:
        if daemon.is_here:
            missing = [f"{name}: {line}" for name, known, step in found for line in missing_files(known, step["params"])]
            if missing:
                raise CommandFailed("\n".join(missing), MISUSED)
        for _, known, step in found:
            step["params"] = with_files(daemon, known, step["params"], settings_from().jobs.data_roots)
        created = daemon.call("POST", "/admin/pipelines", chain)
        _begun(daemon, created, created["jobs"], follow, as_json)


def list_jobs(
    kind: Annotated[str | None, typer.Option(help="Only of this kind.")] = None,
    status: Annotated[str | None, typer.Option(help="Only with this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    query = {name: value for name, value in (("kind", kind), ("status", status), ("limit", limit)) if value is not None}
    with _daemon() as daemon:
        found = daemon.call("GET", f"/admin/jobs?{urlencode(query)}")["data"]
    if as_json:
        print_json(found)
    elif found:
        print_table(job_description.COLUMNS, [job_description.row(job, time.time()) for job in found])
    else:
        print_line("no jobs; `slmops jobs kinds` lists what can be done")


def show(job: AnyJob = None, as_json: AsJson = False) -> None:
    """Show a job: its params, its progress and its outcome."""
    with _daemon() as daemon:
        found = daemon.call("GET", _path(newest(daemon, job)))
    if as_json:
        print_json(found)
        return
    for line in job_description.description(found):
        print_line(line)


def watch(
    job: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="The id of a job or of a pipeline; by default the newest that runs.")
    ] = None,
) -> None:
    """Follow a job to its end: how far it is, its figures, its loss. Ctrl-C ends the watching, not the job."""
    with _daemon() as daemon:
        id_ = newest(daemon, job)
        if id_.startswith(PIPELINE):
            _follow(daemon, daemon.call("GET", f"/admin/pipelines/{quote(id_, safe='')}")["jobs"])
        else:
            _follow(daemon, [daemon.call("GET", _path(id_))])


def log(job: AnyJob = None, tail: Annotated[int | None, typer.Option(min=1, help="Only so many last lines.")] = None) -> None:
    """Print what a job's processes printed."""
    with _daemon() as daemon:
        text = daemon.text(f"{_path(newest(daemon, job))}/log" + (f"?tail={tail}" if tail else ""))
    if text:
        write_foreign(text.removesuffix("\n") + "\n")


def cancel(
    job: OneJob = None,
    is_sure: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, where no job is named.")] = False,
    as_json: AsJson = False,
) -> None:
    """End a job."""
    _act(lambda daemon: the_only(daemon, job, _UNFINISHED, confirm=None if is_sure else "cancel"), "cancel", as_json)


def pause(job: OneJob = None, as_json: AsJson = False) -> None:
    """Stop a job at a checkpoint, to go on later."""
    _act(lambda daemon: the_only(daemon, job, ("running",)), "pause", as_json)


def resume(job: OneJob = None, as_json: AsJson = False) -> None:
    """Let a paused job go on."""
    _act(lambda daemon: the_only(daemon, job, ("paused",)), "resume", as_json)


def remove(job: JobId) -> None:
    """Delete a job that has ended, and its files; what it registered stays."""
    with _daemon() as daemon:
        id_ = whole_id(daemon, job)
        daemon.call("DELETE", _path(id_))
    print_line(f"{id_} is deleted")


# ---- inside ----


def _daemon() -> Daemon:
    from server.cli.daemon import Daemon

    return Daemon.configured(settings_from()).require()


def _path(job: str) -> str:
    return f"/admin/jobs/{quote(job, safe='')}"


def _requested(kind: str | None, pairs: Collection[str], config: Path | None) -> tuple[JobKind, dict[str, Any]]:
    """(the kind, the body of the request, with whole paths). Raises CommandFailed."""
    from server.cli.job_files import with_whole_paths

    body = read_file(config, JOB_FIELDS) if config is not None else {}
    named = kind or body.get("kind")
    if named is None:
        raise CommandFailed("name a KIND, or a --config file that has one; `slmops jobs kinds` lists them", MISUSED)
    known, given = kind_named(named), body.get("params", {})
    if not isinstance(given, dict):
        raise CommandFailed(f"{config}: params must be an object of names and values", MISUSED)
    params = with_whole_paths(known, given, config.parent if config is not None else Path())
    flags = with_whole_paths(known, params_of(known, pairs), Path())
    return known, {**body, "kind": str(known), "params": {**params, **flags}}


def _requested_steps(file: Path) -> tuple[dict[str, Any], list[tuple[str, JobKind, dict[str, Any]]]]:
    """(the body of the request, its steps with their names in messages and their kinds). Raises CommandFailed with all problems."""
    from server.cli.job_files import with_whole_paths

    chain = read_file(file, PIPELINE_FIELDS)
    steps = chain.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise CommandFailed(f"{file}: steps must be a list of objects with {', '.join(STEP_FIELDS)}", MISUSED)
    found, problems = [], []
    for number, step in enumerate(steps, 1):
        name = f"step {number} {step.get('name', '')!r}"
        try:
            check_fields(step, STEP_FIELDS)
            known, params = kind_named(step.get("kind", "")), step.get("params", {})
            if not isinstance(params, dict):
                raise CommandFailed("params must be an object of names and values")
            name, step["kind"] = f"{name} ({known})", str(known)
            step["params"] = with_whole_paths(known, params, file.parent)
            found.append((name, known, step))
        except CommandFailed as error:
            problems += [f"{name}: {line}" for line in error.message.splitlines()]
    if problems:
        raise CommandFailed("\n".join(problems), MISUSED)
    return chain, found


def _act(which: Callable[[Daemon], str], verb: str, as_json: bool) -> None:
    """which: chooses the job."""
    with _daemon() as daemon:
        job = which(daemon)
        found = daemon.call("POST", f"{_path(job)}/{verb}")
    if as_json:
        print_json(found)
    else:
        print_line(f"{job} is {found['status']}")


def _begun(daemon: Daemon, created: dict[str, Any], jobs: list[dict[str, Any]], follow: bool, as_json: bool) -> None:
    if as_json:
        print_json(created)
    else:
        print_line(created["id"])
    if follow:
        _follow(daemon, jobs)


def _follow(daemon: Daemon, jobs: list[dict[str, Any]]) -> None:
    """One after another. Raises CommandFailed when one did not succeed."""
    from server.cli.job_watch import watch_job

    for job in jobs:
        id_, step = job["id"], job_description.step_of(job)
        try:
            ended = watch_job(daemon, id_, step)
        except KeyboardInterrupt:
            print_note(f"the job continues; `slmops jobs watch {id_}` follows it again, `slmops jobs cancel {id_}` ends it")
            raise
        if ended["status"] != "succeeded":
            why = f": {ended['failure']['message']}" if ended["failure"] else ""
            raise CommandFailed(f"{id_} {ended['status']}{why}")
        for line in job_description.outcome(ended):
            print_line(line)
