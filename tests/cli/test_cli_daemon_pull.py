"""Following and stopping a daemon's pull, against a scripted daemon."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest

from model_registry.progress import SilentProgress
from server.cli.daemon import Daemon
from server.cli.failures import CommandFailed
from server.cli.progress import ProgressBar
from server.cli.registry_access import PullOrder
from server.cli.registry_access.daemon_pull import DaemonPull

ORDER = PullOrder("tiny", name="small")
EVENTS = (
    {"type": "stage", "message": "1 of 4: downloading", "data": {}},
    {"type": "progress", "message": "", "data": {"step": 120_000_000, "total": 515_000_000, "unit": "bytes"}},
)


class ScriptedDaemon:
    """Answers one pull. is_interrupted: whether ctrl-C comes after its events."""

    def __init__(self, *, is_new: bool = True, is_interrupted: bool = False, **ended: Any) -> None:
        self.calls: list[tuple[str, str]] = []
        self.body: Mapping[str, Any] = {}
        self._is_new = is_new
        self._is_interrupted = is_interrupted
        self._ended = {"id": "job_1", "status": "succeeded", "version": "small:1", "failure": None} | ended

    def create(self, path: str, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
        self.body = body
        return {"id": "job_1"}, self._is_new

    def events(self, path: str, after_a_break: str) -> Iterator[Mapping[str, Any]]:
        yield from EVENTS
        if self._is_interrupted:
            raise KeyboardInterrupt

    def call(self, method: str, path: str) -> Mapping[str, Any]:
        self.calls.append((method, path))
        return self._ended


def pull_of(daemon: ScriptedDaemon) -> DaemonPull:
    return DaemonPull(cast("Daemon", daemon))


def test_a_pull_is_followed_to_its_version() -> None:
    daemon = ScriptedDaemon()
    assert pull_of(daemon).follow(ORDER, SilentProgress()) == "small:1"
    assert daemon.body == {"reference": "tiny", "name": "small", "precision": "auto", "trial": True}


def test_an_interrupted_pull_is_cancelled_and_the_bar_knows_how_far_it_came() -> None:
    daemon = ScriptedDaemon(is_interrupted=True)
    with ProgressBar() as bar, pytest.raises(KeyboardInterrupt):
        pull_of(daemon).follow(ORDER, bar)
    assert daemon.calls == [("POST", "/admin/registry/pulls/job_1/cancel")]
    assert bar.reached == "120.0 of 515.0 MB"


def test_the_pull_of_another_command_continues(capsys: pytest.CaptureFixture[str]) -> None:
    daemon = ScriptedDaemon(is_new=False, is_interrupted=True)
    with pytest.raises(KeyboardInterrupt):
        pull_of(daemon).follow(ORDER, SilentProgress())
    assert daemon.calls == []
    assert "job_1" in capsys.readouterr().err


def test_an_interrupt_while_the_pull_is_created_ends_it_too() -> None:
    class Slow(ScriptedDaemon):
        def create(self, path: str, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
            signal.raise_signal(signal.SIGINT)
            return super().create(path, body)

    daemon = Slow()
    with pytest.raises(KeyboardInterrupt):
        pull_of(daemon).follow(ORDER, SilentProgress())
    assert daemon.calls == [("POST", "/admin/registry/pulls/job_1/cancel")]


def test_a_second_interrupt_waits_for_nothing() -> None:
    class Hanging(ScriptedDaemon):
        def create(self, path: str, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("it was not interrupted")

    with pytest.raises(KeyboardInterrupt):
        pull_of(Hanging()).follow(ORDER, SilentProgress())


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ({"status": "failed", "failure": {"code": "out_of_disk", "message": "The disk is full."}}, "The disk is full."),
        ({"status": "cancelled"}, "run the command again"),
    ],
)
def test_a_pull_that_did_not_succeed_says_why(ended: dict[str, Any], words: str) -> None:
    daemon = ScriptedDaemon(version=None, **ended)
    with pytest.raises(CommandFailed) as failed:
        pull_of(daemon).follow(ORDER, SilentProgress())
    assert words in failed.value.message


def test_a_detached_pull_is_only_started() -> None:
    daemon = ScriptedDaemon()
    assert pull_of(daemon).start(ORDER) == "job_1"
    assert daemon.calls == []
