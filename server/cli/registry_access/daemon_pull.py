"""A pull that a daemon does: started, followed by its events, stopped with the command that started it."""

from __future__ import annotations

from urllib.parse import quote

from model_registry.progress import Progress
from server.cli.daemon import Daemon
from server.cli.failures import CommandFailed
from server.cli.interrupts import interrupt_deferred
from server.cli.registry_access.commands import Json, PullOrder
from server.cli.terminal import print_note

PATH = "/admin/registry/pulls"


class DaemonPull:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def start(self, order: PullOrder) -> str:
        """The id of the pull: a new one, or the one that runs already for the same order."""
        return str(self._create(order)[0]["id"])

    def follow(self, order: PullOrder, progress: Progress) -> str:
        """Waits for the end. Returns the version's label. Raises CommandFailed; KeyboardInterrupt once the pull is cancelled."""
        with interrupt_deferred() as was_interrupted:
            pull, is_new = self._create(order)
        path = _path(pull)
        try:
            if was_interrupted():
                raise KeyboardInterrupt
            if not is_new:
                print_note(f"This model is being pulled already ({pull['id']}).")
            for event in self._daemon.events(f"{path}/events", "the pull continues, run the command again to follow it"):
                _show(event, progress)
        except KeyboardInterrupt:
            self._interrupted(pull, is_new)
            raise
        return _version_of(self._daemon.call("GET", path))

    def _create(self, order: PullOrder) -> tuple[Json, bool]:
        """The pull, and whether it is new."""
        body = {"reference": order.reference, "name": order.name, "precision": order.precision, "trial": order.trial}
        return self._daemon.create(PATH, {name: value for name, value in body.items() if value is not None})

    def _interrupted(self, pull: Json, is_ours: bool) -> None:
        if is_ours:
            self._daemon.call("POST", f"{_path(pull)}/cancel")
        else:
            print_note(f"The pull continues: another command started it. `slmops jobs cancel {pull['id']}` ends it.")


def _path(pull: Json) -> str:
    return f"{PATH}/{quote(str(pull['id']), safe='')}"


def _show(event: Json, progress: Progress) -> None:
    match event["type"]:
        case "stage":
            progress.stage(str(event["message"]))
        case "progress":
            progress.update(int(event["data"]["step"]), event["data"]["total"] or None)


def _version_of(pull: Json) -> str:
    """Raises CommandFailed for a pull that did not succeed."""
    if pull["version"] is not None:
        return str(pull["version"])
    failure = pull["failure"]
    raise CommandFailed(failure["message"] if failure else f"the pull {pull['id']} was {pull['status']}; run the command again")
