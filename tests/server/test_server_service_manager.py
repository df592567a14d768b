"""Readiness as systemd learns of it, and log lines as the journal takes them: a real process, with the manager's socket."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.logs import JsonFormatter, TextFormatter
from server.service_manager import JournalFormatter, is_journal, notify
from tests.doubles.logged_daemon import DaemonProcess


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket on which a manager would wait."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield channel


def test_the_manager_learns_that_the_daemon_is_ready_and_that_it_stops(tmp_path: Path, manager: socket.socket) -> None:
    with DaemonProcess(tmp_path) as daemon:
        assert manager.recv(100) == b"READY=1"
        assert httpx.get(f"{daemon.url}/health", trust_env=False).status_code == 200
        daemon.signal(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        assert daemon.end() == 0


def test_the_manager_may_listen_in_the_abstract_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"slmops-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("\0" + name)
        channel.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        notify("READY=1")
        assert channel.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify", "no address"])
def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


def test_the_journal_is_recognised_by_its_stream(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        status = os.fstat(stream.fileno())
        assert is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
        assert not is_journal(stream, {})
    assert not is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_lines_of_the_journal_have_their_priority(level: int, priority: int) -> None:
    record = logging.LogRecord("slmops", level, "", 0, "event", None, None)
    prefix, _, line = JournalFormatter(JsonFormatter()).format(record).partition(">")
    assert prefix == f"<{priority}"
    assert json.loads(line)["event"] == "event"


def test_each_line_of_a_record_has_the_priority() -> None:
    try:
        raise ValueError
    except ValueError as error:
        record = logging.LogRecord("slmops", logging.ERROR, "", 0, "event", None, (ValueError, error, error.__traceback__))
    lines = JournalFormatter(TextFormatter()).format(record).splitlines()
    assert len(lines) > 1
    assert all(line.startswith("<3>") for line in lines)
