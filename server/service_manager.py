"""systemd's side channels of a service: readiness (sd_notify(3)) and the priority of log lines in the journal (sd-daemon(3)).

Knows nothing of the daemon or of what is logged. Outside systemd nothing here has an effect.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Mapping
from typing import TextIO

_SEND_TIMEOUT_S = 1.0
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


def notify(state: str) -> None:
    """Sends `READY=1` or `STOPPING=1` to the service manager, if it waits for that (NOTIFY_SOCKET). A failure is ignored:
    systemd ends a service of Type=notify that does not become ready in time, and logs that.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(_SEND_TIMEOUT_S)
        channel.sendto(state.encode(), address)


def is_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written to `stream` goes to the journal: JOURNAL_STREAM holds its device and inode."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class JournalFormatter(logging.Formatter):
    """Another formatter's lines, each with the prefix (`<4>`) that the journal removes and keeps as the line's priority."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG)
        return "\n".join(f"<{priority}>{line}" for line in self._inner.format(record).split("\n"))
