"""`slmops logs`: the latest lines of the log of a running daemon, whatever started it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.configuration import settings_from
from server.cli.failures import CommandFailed
from server.cli.terminal import print_compact_json, print_line
from server.logs import text_of

if TYPE_CHECKING:
    from server.cli.daemon import Daemon

_POLL_S = 1.0


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with the lines to come, until ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=2000, help="Begin with the latest so many.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object per line.")] = False,
) -> None:
    """Print the running daemon's log: its latest 2000 lines at most. systemd keeps all of them: `journalctl -u slmops`."""
    from server.cli.daemon import Daemon

    with Daemon.configured(settings_from()) as daemon:
        if not daemon.is_running():
            raise CommandFailed(f"no daemon answers at {daemon.url}; of one that systemd ran: `journalctl -u slmops`")
        for line in _lines(daemon, lines, follow=follow):
            if as_json:
                print_compact_json(line)
                continue
            clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line["time"]))
            print_line(text_of(clock, line["level"].upper(), line["event"], line["fields"]))
            sys.stdout.flush()


def _lines(daemon: Daemon, first: int, *, follow: bool) -> Iterator[dict[str, Any]]:
    after, limit = 0, first
    while True:
        found: list[dict[str, Any]] = daemon.call("GET", f"/admin/logs?after={after}&limit={limit}")["data"]
        yield from found
        if not follow:
            return
        after, limit = found[-1]["number"] if found else after, 2000
        time.sleep(_POLL_S)
