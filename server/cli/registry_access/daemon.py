"""Registry commands at a running daemon, through `/admin/registry`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from model_registry.name_matching import same_label
from model_registry.names import parse_label
from model_registry.progress import Progress, SilentProgress
from model_registry.records import LIVE
from model_registry.registry import open_registry
from server.cli.daemon import Daemon
from server.cli.registry_access.commands import Json, PullOrder
from server.cli.registry_access.daemon_pull import DaemonPull
from server.cli.registry_access.direct import DirectRegistry
from server.cli.registry_access.local_source import local_path, uploaded_source

PATH = "/admin/registry"


class DaemonRegistry:
    """overview: what the daemon answers at `/admin/registry`. local_home: its home, if it is this process's own too.

    Models that lie on this machine are read by this process where it has the home, and sent to the daemon else.
    """

    def __init__(self, daemon: Daemon, overview: Json, *, local_home: Path | None) -> None:
        self._daemon = daemon
        self._overview = overview
        self._local_home = local_home

    @property
    def home(self) -> str:
        return str(self._overview["home"])

    def models(self) -> list[Json]:
        return self._list("models")

    def show(self, label: str) -> Json:
        return self._daemon.call("GET", self._path_of(label))

    def remove(self, label: str, *, force: bool = False) -> Json:
        return self._daemon.call("DELETE", f"{self._path_of(label)}?force={str(force).lower()}")

    def set_alias(self, label: str, alias: str) -> Json:
        name, _, version = self._known(label).partition(":")
        body = {"version": int(version) if version.isdigit() else version or LIVE}
        return self._daemon.call("PUT", _path("models", name, "aliases", alias), body)

    def remove_alias(self, model: str, alias: str) -> Json:
        return self._daemon.call("DELETE", _path("models", self._known(model), "aliases", alias))

    def verify(self, label: str) -> Json:
        return self._daemon.call("POST", f"{self._version_path(label)}/verify")

    def collect_garbage(self) -> int:
        return int(self._daemon.call("POST", f"{PATH}/gc")["freed_bytes"])

    def lineage(self, label: str) -> Json:
        return self._daemon.call("GET", f"{self._version_path(label)}/lineage")

    def catalog(self) -> list[Json]:
        return self._list("catalog")

    def pull(self, order: PullOrder, progress: Progress) -> Json:
        if self._local_home is not None and local_path(order.reference) is not None:
            with open_registry(self._local_home) as registry:
                return DirectRegistry(registry).pull(order, progress)
        return self.show(DaemonPull(self._daemon).follow(self._sent(order, progress), progress))

    def start_pull(self, order: PullOrder) -> str:
        return DaemonPull(self._daemon).start(self._sent(order, SilentProgress()))

    def _sent(self, order: PullOrder, progress: Progress) -> PullOrder:
        """The order with what lies on this machine uploaded."""
        from model_registry.pull.options import plan_pull

        path = local_path(order.reference)
        if path is None:
            return order
        progress.stage(f"uploading {path.name}")
        name = order.name or plan_pull(order.reference).name  # the upload's own name is an id
        return replace(order, reference=uploaded_source(self._daemon, path), name=name)

    def _list(self, what: str) -> list[Json]:
        data: list[Json] = self._daemon.call("GET", _path(what))["data"]
        return data

    def _known(self, label: str) -> str:
        """With the model's name as the daemon knows it; an unknown one is left for the daemon to refuse."""
        return same_label(label, [model["name"] for model in self.models()])

    def _path_of(self, label: str) -> str:
        known = self._known(label)
        return _path("models", known) if parse_label(known).is_bare else self._version_path(known)

    def _version_path(self, label: str) -> str:
        name, _, version = self._known(label).partition(":")
        return _path("models", name, "versions", version or LIVE)


def _path(*parts: Any) -> str:
    return "/".join([PATH, *(quote(str(part), safe="") for part in parts)])
