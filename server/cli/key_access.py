"""Where `slmops keys` manages API keys: at the running daemon, or in this machine's registry. Knows nothing of terminals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from model_registry.database import Database
from model_registry.keys import KeyStore
from server.admin.key_bodies import KeyBody, KeyList, NewKeyBody, key_body, new_key_body
from server.cli.daemon import Daemon, Refused
from server.cli.failures import CommandFailed
from server.cli.registry_access.choice import note_other_home, overview_of, require_own_home
from server.cli.registry_access.home_owner import is_served

if TYPE_CHECKING:
    from server.settings.daemon import Settings

_PATH = "/admin/keys"


class KeyManager(Protocol):
    def listed(self) -> Sequence[KeyBody]:
        """The oldest first."""

    def create(self, name: str, scopes: Sequence[str], expires_in_s: float | None) -> NewKeyBody: ...

    def revoke(self, key: str) -> KeyBody:
        """Revokes a key by its id or name."""


class DaemonKeyManager:
    """Raises CommandFailed, as the daemon's client does."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def listed(self) -> Sequence[KeyBody]:
        return KeyList.model_validate(self._daemon.call("GET", _PATH)).data

    def create(self, name: str, scopes: Sequence[str], expires_in_s: float | None) -> NewKeyBody:
        body = {"name": name, "scopes": list(scopes), "expires_in": expires_in_s}
        return NewKeyBody.model_validate(self._daemon.call("POST", _PATH, body))

    def revoke(self, key: str) -> KeyBody:
        return KeyBody.model_validate(self._daemon.call("DELETE", f"{_PATH}/{quote(key, safe='')}"))


class RegistryKeyManager:
    """Raises RegistryError, as the store does."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    def listed(self) -> Sequence[KeyBody]:
        return [key_body(key) for key in self._store.all_keys()]

    def create(self, name: str, scopes: Sequence[str], expires_in_s: float | None) -> NewKeyBody:
        expires_at = None if expires_in_s is None else datetime.now(UTC) + timedelta(seconds=expires_in_s)
        return new_key_body(self._store.create(name, scopes, expires_at))

    def revoke(self, key: str) -> KeyBody:
        return key_body(self._store.revoke(key))


@contextmanager
def open_key_manager(settings: Settings) -> Iterator[KeyManager]:
    """Yields the daemon's manager when a daemon runs and accepts our key, else that of its home if that is ours, whose owner is
    always permitted to: so nobody is locked out. A note names the home where it is not the settings'.

    Raises CommandFailed when a daemon refuses our key that serves another home, here or elsewhere.
    """
    with Daemon.configured(settings) as daemon:
        manager = DaemonKeyManager(daemon)
        if daemon.is_named:
            daemon.require()
        if daemon.is_running() and _is_authorized(manager, daemon, settings):
            yield manager
            return
    with Database(settings.home) as database:
        yield RegistryKeyManager(KeyStore(database))


def require_home_of_daemon(settings: Settings) -> None:
    """For what can only be done in the home: raises CommandFailed when the daemon that answers has another one."""
    with Daemon.configured(settings) as daemon:
        if daemon.is_named:
            raise CommandFailed(f"keys are removed on the machine of {daemon.url} only; `slmops keys revoke` works from here")
        if not daemon.is_running() or is_served(settings.home, daemon.url):
            return
        with suppress(Refused):
            if (home := overview_of(daemon)["home"]) == str(settings.home):
                return
            raise CommandFailed(
                f"the daemon at {daemon.url} has its home in {home}, and SLMOPS_HOME is {settings.home}; set that first"
            )
        raise CommandFailed(f"the daemon at {daemon.url} has another home than {settings.home}; set SLMOPS_HOME to it")


def _is_authorized(manager: DaemonKeyManager, daemon: Daemon, settings: Settings) -> bool:
    try:
        manager.listed()
    except Refused as refusal:
        require_own_home(daemon, settings.home, refusal)
        return False
    with suppress(Refused):  # a daemon of an earlier release does not say its home
        note_other_home(daemon, overview_of(daemon), settings.home)
    return True
