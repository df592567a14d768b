"""`slmops backup` and `restore`: copies of this machine's home in one file, made and put back beside a daemon that serves it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, TextIO

import typer

from server.cli.configuration import settings_from
from server.cli.failures import MISUSED, CommandFailed
from server.cli.models import AsJson
from server.cli.terminal import print_json, print_line, print_note, print_table, size

if TYPE_CHECKING:
    from model_registry.backup import Backup, Contents, Restored, RestoreOptions
    from server.settings.daemon import Settings

_PIPE = "-"


def backup(
    target: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="A new file, a folder to put one in, or `-` for standard output.")
    ] = Path(),
    jobs: Annotated[bool, typer.Option(help="With the jobs that have ended, and their files.")] = True,
    as_json: AsJson = False,
) -> None:
    """Copy models, evaluations, API keys, uploads and jobs into one file, also while a daemon serves.

    Exit code 1 when a model's files are damaged: they are in the backup as they are.
    """
    from model_registry.backup import back_up, back_up_to
    from model_registry.database import Database
    from server.cli.progress import ProgressBar
    from server.version import slmops_version

    with Database(settings_from().home) as database, ProgressBar() as bar:
        if not database.exists():
            raise CommandFailed(f"there is nothing to back up in {database.home}; is SLMOPS_HOME the home of the daemon?")
        if str(target) == _PIPE:
            made = back_up(database, _standard(sys.stdout), bar, release=slmops_version(), with_jobs=jobs)
        else:
            target = _file_in(target) if target.is_dir() else target
            made = back_up_to(database, target, bar, release=slmops_version(), with_jobs=jobs)
    _report(made, target, as_json)


def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="What `slmops backup` wrote; `-` reads standard input.")],
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Only these models, or versions of them, as NAME:NUMBER.")
    ] = None,
    keys: Annotated[
        bool | None, typer.Option("--keys/--no-keys", help="Restore API keys; left out: only where there are none.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Empty the home first; what it held is kept beside it. No daemon may run.")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="Show what is in the backup, and restore nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add what a backup has and this home lacks, also while a daemon serves. Nothing that is there is changed."""
    if replace and models:
        raise CommandFailed("--replace restores everything; leave out the models, or --replace", MISUSED)
    if show:
        _list(source, as_json)
        return
    from model_registry.backup import RestoreOptions

    options = RestoreOptions(tuple(models or ()), keys)
    settings = settings_from()
    with _emptied(settings.home) if replace else contextlib.nullcontext() as kept:
        restored = _restored(settings, source, options)
    if as_json:
        print_json(_described(restored) | {"replaced": None if kept is None else str(kept)})
        return
    for line in _lines(restored):
        print_line(line)
    for sentence in restored.skipped:
        print_note(sentence)
    if kept is not None:
        print_line(f"what was in the home before is in {kept}; remove that folder once all is well")


# ---- inside ----


def _standard(stream: TextIO) -> IO[bytes]:
    if stream.isatty():
        raise CommandFailed("a backup is no text for a terminal; name a file, or a pipe", MISUSED)
    return stream.buffer


def _file_in(folder: Path) -> Path:
    return folder / f"slmops-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar"


def _emptied(home: Path) -> contextlib.AbstractContextManager[Path | None]:
    from model_registry.backup import replaced_home

    return replaced_home(home)


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[IO[bytes]]:
    if str(source) == _PIPE:
        yield _standard(sys.stdin)
        return
    try:
        file = source.open("rb")
    except OSError as error:
        raise CommandFailed(f"{source} cannot be read: {error.strerror}", MISUSED) from None
    with file:
        yield file


def _restored(settings: Settings, source: Path, options: RestoreOptions) -> Restored:
    from model_registry.backup import restore as restore_backup
    from server.cli.home import open_home
    from server.cli.progress import ProgressBar

    with _opened(source) as file, open_home(settings) as registry, ProgressBar() as bar:
        return restore_backup(registry, file, options, bar)


def _report(made: Backup, target: Path, as_json: bool) -> None:
    contents = made.contents
    if as_json and str(target) != _PIPE:
        print_json({"file": str(target), **_listed(contents), "damaged": list(made.damaged)})
    elif str(target) != _PIPE:
        print_line(f"{target}: {len(contents.models)} versions, {len(contents.entries)} files, {size(contents.size_bytes)}")
    for sentence in contents.warnings:
        print_note(sentence)
    if made.damaged:
        raise CommandFailed(f"the files of {', '.join(made.damaged)} are damaged; `slmops verify` shows which")


def _list(source: Path, as_json: bool) -> None:
    from model_registry.backup import read_contents

    with _opened(source) as file:
        contents = read_contents(file)
    if as_json:
        print_json(_listed(contents))
        return
    print_line(f"made by slmops {contents.release} at {contents.created_at:%Y-%m-%d %H:%M} UTC, {size(contents.size_bytes)}")
    if contents.models:
        print_table(("MODEL", "SIZE>"), [(label, size(num_bytes)) for label, num_bytes in contents.models.items()])
    for sentence in contents.warnings:
        print_note(sentence)


def _listed(contents: Contents) -> dict[str, Any]:
    return {
        "release": contents.release,
        "created_at": contents.created_at.isoformat(),
        "models": dict(contents.models),
        "num_files": len(contents.entries),
        "size_bytes": contents.size_bytes,
        "warnings": list(contents.warnings),
    }


def _described(restored: Restored) -> dict[str, Any]:
    return {
        "versions": dict(restored.numbers),
        "present": list(restored.present),
        "evaluations": restored.num_evaluations,
        "uploads": restored.num_uploads,
        "jobs": restored.num_jobs,
        "keys": restored.num_keys,
        "skipped": list(restored.skipped),
    }


def _lines(restored: Restored) -> Iterator[str]:
    for old, new in restored.numbers.items():
        yield f"restored {new}" if old == new else f"restored {old} as {new}, since its number is another version's here"
    if restored.present:
        yield f"here already: {', '.join(restored.present)}"
    counted = (
        ("evaluations", restored.num_evaluations),
        ("uploads", restored.num_uploads),
        ("jobs", restored.num_jobs),
        ("API keys", restored.num_keys),
    )
    added = [f"{number} {name}" for name, number in counted if number]
    if added:
        yield f"restored {', '.join(added)}"
    if not (restored.numbers or added):
        yield "nothing was missing"
