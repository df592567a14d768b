"""`slmops disk` and `gc`: what takes the disk, its limits, and what can be removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.configuration import settings_from
from server.cli.home import open_home
from server.cli.models import AsJson
from server.cli.terminal import print_json, print_line, print_note, print_table, size

if TYPE_CHECKING:
    from server.settings.daemon import Settings

_FREED_BY = {
    "versions": "slmops rm MODEL[:VERSION]",
    "checkpoints": "slmops gc, when room is needed",
    "uploads": "DELETE /v1/files/ID",
    "jobs": "slmops jobs rm ID",
    "downloads": "slmops gc",
    "caches": "slmops gc, when room is needed",
    "exports": "remove the folder",
    "backups": "remove the file",
    "other": "-",
}
_SHOWN_ITEMS = 50
All = Annotated[bool, typer.Option("--all", help="Each version, job and file too, the largest first.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")]


def disk(everything: All = False, as_json: AsJson = False) -> None:
    """Show what takes the disk, the limits on it, and what could be removed."""
    settings = settings_from()
    body = _report(settings)
    if as_json:
        print_json(body)
        return
    if settings.url is None and body["home"] != str(settings.home):
        print_note(f"The daemon's home is {body['home']}; SLMOPS_HOME is {settings.home}.")
    columns = ("KIND", "USED>", "QUOTA>", "RESERVED>", "RECLAIMABLE>", "FREED BY")
    print_table(columns, [_row(kind) for kind in body["kinds"] if kind["used_bytes"] or kind["quota_bytes"]])
    print_line("")
    for line in _totals(body):
        print_line(line)
    if everything:
        print_line("")
        _print_items(body)
        _print_candidates(body["candidates"])


def disk_warnings(settings: Settings) -> list[str]:
    """What is nearly full in the settings' home, a sentence each; for other commands. Asks no daemon."""
    with open_home(settings, create=False) as registry:
        return [warning.message for warning in registry.disk.warnings()]


def collect_garbage(dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Remove what nothing needs, and what must go for the limits. A daemon does the same every minute."""
    settings = settings_from()
    if dry_run:
        planned = [each for each in _report(settings)["candidates"] if each["planned"]]
        if as_json:
            print_json({"would_free_bytes": sum(each["size_bytes"] for each in planned), "candidates": planned})
        else:
            _print_candidates(planned)
            print_line(f"{size(sum(each['size_bytes'] for each in planned))} would be freed")
        return
    from server.cli.registry_access import open_registry_access

    with open_registry_access(settings) as registry:
        freed = registry.collect_garbage()
    if as_json:
        print_json({"freed_bytes": freed})
    else:
        print_line(f"{size(freed)} freed")


def _report(settings: Settings) -> dict[str, Any]:
    """Of the running daemon's home; without one, of the settings'."""
    from server.cli.daemon import Daemon

    with Daemon.configured(settings) as daemon:
        if daemon.is_running():
            return daemon.call("GET", "/admin/registry/disk")
    from server.admin.disk_bodies import disk_body

    with open_home(settings, create=False) as registry:
        return disk_body(registry.disk.report()).model_dump()


def _row(kind: dict[str, Any]) -> tuple[str, ...]:
    quota, reserved, reclaimable = kind["quota_bytes"], kind["reserved_bytes"], kind["reclaimable_bytes"]
    return (
        kind["kind"],
        size(kind["used_bytes"]),
        "-" if quota is None else size(quota),
        size(reserved) if reserved else "-",
        size(reclaimable) if reclaimable else "-",
        _FREED_BY.get(kind["kind"], "-"),
    )


def _totals(body: dict[str, Any]) -> Iterator[str]:
    limit = "" if body["max_bytes"] is None else f" of the {size(body['max_bytes'])} that disk.max_bytes allows"
    yield f"{body['home']} takes {size(body['used_bytes'])}{limit}"
    yield f"{size(body['free_bytes'])} of {size(body['total_bytes'])} are free; new work leaves {size(body['min_free_bytes'])} free"
    yield from (f"warning: {warning}" for warning in body["warnings"])


def _print_items(body: dict[str, Any]) -> None:
    rows = [(each["kind"], each["name"], size(each["used_bytes"]), size(each["freed_bytes"])) for each in body["items"]]
    print_table(("KIND", "NAME", "USED>", "FREED IF REMOVED>"), rows[:_SHOWN_ITEMS])
    if len(rows) > _SHOWN_ITEMS:
        print_line(f"and {len(rows) - _SHOWN_ITEMS} smaller ones; --json has them all")


def _print_candidates(candidates: list[dict[str, Any]]) -> None:
    if not candidates:
        return
    rows = [(each["kind"], each["name"], size(each["size_bytes"]), _fate(each), each["why"]) for each in candidates]
    print_line("")
    print_table(("KIND", "REMOVABLE", "SIZE>", "WHEN", "WHY"), rows)


def _fate(candidate: dict[str, Any]) -> str:
    if candidate["in_use"]:
        return f"stays: {candidate['in_use']}"
    return "next collection" if candidate["planned"] else "when room is needed"
