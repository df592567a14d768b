"""`slmops jobs ...` and `slmops pipeline`: work that the daemon does beside serving."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import typer

from server.cli.configuration import settings_from
from server.cli.description import print_plan
from server.cli.failures import MISUSED, CommandFailed
from server.cli.models import AsJson
from server.cli.terminal import print_json, print_line, print_note, print_table, span, write_foreign

if TYPE_CHECKING:
    from server.cli.daemon import Daemon

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end.")]
_COLUMNS = ("JOB", "KIND", "STATUS", "STAGE", "DONE>", "LEFT>", "MADE", "AGE>")


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
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="VALUE: JSON, or text; local data is uploaded.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help='A JSON file with "kind" and "params".')] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the plan and create no job.")] = False,
    follow: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Create a job; what cannot work is refused before it is queued."""
    job_body = _read(file) if file else {}
    job_body |= {"kind": kind} if kind else {}
    job_body["params"] = {**job_body.get("params", {}), **dict(_pair(each) for each in param or ())}
    if "kind" not in job_body:
        raise CommandFailed("name a KIND, or a file that has one; `slmops jobs kinds` lists them", MISUSED)
    from server.cli.job_files import with_files

    roots = settings_from().jobs.data_roots
    with _daemon() as daemon:
        job_body["params"] = with_files(daemon, job_body["kind"], job_body["params"], roots)
        if dry_run:
            print_plan(daemon.call("POST", "/admin/job-plans", {name: job_body[name] for name in ("kind", "params")}), as_json)
            return
        job = daemon.call("POST", "/admin/jobs", job_body)
        _begun(daemon, job, [job["id"]], follow, as_json)


def pipeline(
    file: Annotated[Path, typer.Argument(metavar="FILE", help='A JSON file with "steps".')],
    follow: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Create a chain of jobs: all of them, or none when one cannot work."""
    from server.cli.job_files import with_files

    job_body = _read(file)
    roots = settings_from().jobs.data_roots
    with _daemon() as daemon:
        for step in job_body.get("steps") or ():
            if isinstance(step, dict) and "params" in step:
                step["params"] = with_files(daemon, step.get("kind"), step["params"], roots)
        chain = daemon.call("POST", "/admin/pipelines", job_body)
        _begun(daemon, chain, [job["id"] for job in chain["jobs"]], follow, as_json)


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
        print_table(_COLUMNS, [_row(job, time.time()) for job in found])
    else:
        print_line("no jobs; `slmops jobs kinds` lists what can be done")


def show(job: JobId, as_json: AsJson = False) -> None:
    """Show a job: its params, its progress and its outcome."""
    with _daemon() as daemon:
        found = daemon.call("GET", _path(job))
    if as_json:
        print_json(found)
        return
    for line in _description(found):
        print_line(line)


def watch(job: JobId) -> None:
    """Follow a job to its end: how far it is, its figures, its loss. Ctrl-C ends the watching, not the job."""
    with _daemon() as daemon:
        _follow(daemon, [job])


def log(job: JobId, tail: Annotated[int | None, typer.Option(min=1, help="Only so many last lines.")] = None) -> None:
    """Print what a job's processes printed."""
    with _daemon() as daemon:
        text = daemon.text(f"{_path(job)}/log" + (f"?tail={tail}" if tail else ""))
    if text:
        write_foreign(text.removesuffix("\n") + "\n")


def cancel(job: JobId, as_json: AsJson = False) -> None:
    """End a job."""
    _act(job, "cancel", as_json)


def pause(job: JobId, as_json: AsJson = False) -> None:
    """Stop a job at a checkpoint, to go on later."""
    _act(job, "pause", as_json)


def resume(job: JobId, as_json: AsJson = False) -> None:
    """Let a paused job go on."""
    _act(job, "resume", as_json)


def remove(job: JobId) -> None:
    """Delete a job that has ended, and its files; what it registered stays."""
    with _daemon() as daemon:
        daemon.call("DELETE", _path(job))
    print_line(f"{job} is deleted")


def kinds(
    kind: Annotated[str | None, typer.Argument(help="Show the params of this kind.")] = None, as_json: AsJson = False
) -> None:
    """List the kinds of jobs, or the params of one."""
    with _daemon() as daemon:
        found = daemon.call("GET", "/admin/job-kinds")["data"]
    if kind is not None and kind not in {each["kind"] for each in found}:
        raise CommandFailed(f"there is no kind {kind!r}; there are {', '.join(each['kind'] for each in found)}", MISUSED)
    chosen = [each for each in found if kind in (None, each["kind"])]
    if as_json:
        print_json(chosen)
    elif kind is None:
        print_table(("KIND", "WHAT"), [(each["kind"], _first_line(each["params"])) for each in chosen])
    else:
        print_table(("PARAM", "TYPE", "DEFAULT", "WHAT"), list(_params(chosen[0]["params"])))


# ---- inside ----


def _daemon() -> Daemon:
    from server.cli.daemon import Daemon

    return Daemon.configured(settings_from()).require()


def _path(job: str) -> str:
    return f"/admin/jobs/{quote(job, safe='')}"


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{file} cannot be read as JSON: {error}", MISUSED) from None
    if not isinstance(content, dict):
        raise CommandFailed(f"{file} holds no JSON object", MISUSED)
    return content


def _pair(text: str) -> tuple[str, Any]:
    """`epochs=3` -> ("epochs", 3); what is no JSON is a text."""
    name, separator, value = text.partition("=")
    if not separator:
        raise CommandFailed(f"{text!r} is no param; write NAME=VALUE", MISUSED)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _act(job: str, verb: str, as_json: bool) -> None:
    with _daemon() as daemon:
        found = daemon.call("POST", f"{_path(job)}/{verb}")
    if as_json:
        print_json(found)
    else:
        print_line(f"{job} is {found['status']}")


def _begun(daemon: Daemon, created: dict[str, Any], jobs: list[str], follow: bool, as_json: bool) -> None:
    if as_json:
        print_json(created)
    else:
        print_line(created["id"])
    if follow:
        _follow(daemon, jobs)


def _follow(daemon: Daemon, jobs: list[str]) -> None:
    """One after another. Raises CommandFailed when one did not succeed."""
    from server.cli.job_watch import watch_job

    for job in jobs:
        try:
            ended = watch_job(daemon, job)
        except KeyboardInterrupt:
            print_note(f"the job continues; `slmops jobs cancel {job}` ends it")
            raise
        if ended["status"] != "succeeded":
            why = f": {ended['failure']['message']}" if ended["failure"] else ""
            raise CommandFailed(f"{job} {ended['status']}{why}")
        for line in _outcome(ended):
            print_line(line)


def _row(job: dict[str, Any], now: float) -> tuple[str, ...]:
    progress, outcome = job["progress"], job["outcome"]
    done = f"{progress['step']}/{progress['total']}" if progress["total"] else "-"
    left = span(progress["time_left_s"]) if job["status"] == "running" and progress["time_left_s"] else "-"
    made = (outcome or {}).get("version") or "-"
    stage = "-" if job["ended_at"] else progress["stage"] or "-"
    return (job["id"], job["kind"], job["status"], stage, done, left, made, span(now - job["created_at"]))


def _description(job: dict[str, Any]) -> list[str]:
    lines = [f"{job['id']}: {job['kind']}, {job['status']}, attempt {job['attempt']}"]
    lines += [f"params: {json.dumps(job['params'], ensure_ascii=False)}", f"folder: {job['folder']}"]
    lines += [f"plan: {sentence}" for sentence in (job["plan"] or {}).get("summary", ())]
    progress = job["progress"]
    if progress["stage"]:
        lines.append(f"stage: {progress['stage']}, {progress['step']}/{progress['total'] or '?'} {progress['unit']}")
    lines += [f"{name}: {value:.6g}" for name, value in progress["metrics"].items() if value is not None and not job["outcome"]]
    if job["failure"]:
        lines.append(f"failure: {job['failure']['code']}: {job['failure']['message']}")
    return [*lines, *_outcome(job)]


def _outcome(job: dict[str, Any]) -> list[str]:
    from jobs.job import WORK

    outcome = job["outcome"] or {"version": None, "metrics": {}, "files": [], "details": {}}
    lines = [f"made: {outcome['version']}"] if outcome["version"] else []
    lines += [f"{name}: {value:.6g}" for name, value in outcome["metrics"].items() if value is not None]
    if best := outcome["details"].get("params") if job["kind"] == "search" else None:
        lines.append(f"best params: {json.dumps(best, ensure_ascii=False)}")
    lines += [f"folder: {folder}"] if (folder := outcome["details"].get("folder")) else []
    lines += [f"worse: {sentence}" for sentence in outcome["details"].get("regressions", ())]
    return lines + [f"file: {job['folder']}/{WORK}/{file}" for file in outcome["files"]]


def _first_line(schema: dict[str, Any]) -> str:
    return str(schema.get("description", "")).partition("\n")[0]


def _params(schema: dict[str, Any]) -> list[tuple[str, ...]]:
    required = set(schema.get("required", ()))
    return [
        (
            name,
            str(each.get("type") or "/".join(str(choice.get("type", "object")) for choice in each.get("anyOf", ())) or "object"),
            "required" if name in required else json.dumps(each.get("default")),
            str(each.get("description", "")),
        )
        for name, each in schema.get("properties", {}).items()
    ]
