"""Which registry a command uses: that of the daemon which answers at the configured address, else this process's home.

1. No daemon answers: the home; an address that the user chose is an error.
2. The daemon answers with its registry: it, with a note when its home is another one than this process's.
3. The daemon is of an earlier release, or wants a key that we do not have: the home, with a note, if that is the daemon's own home,
   which the daemon reads again when others have changed it. Else an error: another home must not be changed in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from server.cli.daemon import Daemon, Refused
from server.cli.failures import CommandFailed
from server.cli.registry_access.commands import Json, RegistryCommands
from server.cli.registry_access.home_owner import is_served
from server.cli.terminal import print_note

if TYPE_CHECKING:
    from server.settings.daemon import Settings

_PATH = "/admin/registry"


@contextmanager
def open_registry_access(settings: Settings) -> Iterator[RegistryCommands]:
    """Yields the daemon's registry, or that of the settings' home. Prints a note where that is not what one would expect.

    Raises CommandFailed, and RegistryError where the home cannot be opened.
    """
    with Daemon.configured(settings) as daemon:
        overview = _overview(daemon, settings)
        if overview is not None:
            from server.cli.registry_access.daemon import DaemonRegistry

            yield DaemonRegistry(daemon, overview, local_home=_shared_home(daemon, overview, settings.home))
            return
    from model_registry.registry import open_registry
    from server.cli.registry_access.direct import DirectRegistry

    with open_registry(settings.home) as registry:
        yield DirectRegistry(registry, offline=settings.offline)


def require_own_home(daemon: Daemon, home: Path, refusal: Refused) -> None:
    """Prints a note that the home is used instead of the daemon that refused. Raises CommandFailed unless it is that daemon's."""
    is_old = refusal.status == httpx.codes.NOT_FOUND
    if not is_old and not refusal.is_about_the_key:
        raise refusal
    if daemon.is_here and not daemon.is_named and is_served(home, daemon.url):
        why = "is of an earlier release." if is_old else f"refused: {refusal.message}"
        print_note(f"The daemon at {daemon.url} {why} The registry in {home}, which is that daemon's, is used instead.")
        return
    if is_old:
        raise CommandFailed(f"the daemon at {daemon.url} is of an earlier release, which has no {_PATH}; upgrade it")
    raise CommandFailed(f"the daemon at {daemon.url} refused: {refusal.message}")


def note_other_home(daemon: Daemon, overview: Json, home: Path) -> None:
    """Says which home the command is about, unless that is this process's or the user chose the daemon."""
    if not daemon.is_named and Path(overview["home"]) != home:
        print_note(
            f"The daemon at {daemon.url} has its home in {overview['home']}, which this command uses; SLMOPS_HOME is {home}. "
            "Stop that daemon, or set SLMOPS_PORT to another one's port, to use that home."
        )


def overview_of(daemon: Daemon) -> Json:
    """What the daemon says of its registry. Raises Refused."""
    return daemon.call("GET", _PATH)


def _overview(daemon: Daemon, settings: Settings) -> Json | None:
    """None where the home itself is to be used."""
    if not daemon.is_running():
        if daemon.is_named:
            daemon.require()
        return None
    try:
        overview = overview_of(daemon)
    except Refused as refusal:
        require_own_home(daemon, settings.home, refusal)
        return None
    note_other_home(daemon, overview, settings.home)
    return overview


def _shared_home(daemon: Daemon, overview: Json, home: Path) -> Path | None:
    """The home, if it is the daemon's too: on this machine, and not only by its name, as in a container."""
    is_shared = daemon.is_here and Path(overview["home"]) == home and is_served(home, daemon.url)
    return home if is_shared else None
