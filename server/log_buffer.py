"""The latest lines of the log, in memory, for `GET /admin/logs`: there whatever started the daemon, and without prompts."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.logs import fields_of

MOST_LINES = 2000


@dataclass(frozen=True, slots=True)
class LogEntry:
    """number: from 1, in the order of the lines. time: Unix seconds. level: in lower case. fields: JSON values."""

    number: int
    time: float
    level: str
    logger: str
    event: str
    fields: Mapping[str, Any]


class LogBuffer(logging.Handler):
    """A handler that keeps the latest lines. Reading takes no lock: the deque is copied in one step."""

    def __init__(self, most_lines: int = MOST_LINES) -> None:
        super().__init__()
        self._entries: deque[LogEntry] = deque(maxlen=most_lines)
        self._numbers = itertools.count(1)

    def emit(self, record: logging.LogRecord) -> None:
        fields = {name: _plain(value) for name, value in fields_of(record).items()}
        number, level = next(self._numbers), record.levelname.lower()
        self._entries.append(LogEntry(number, round(record.created, 3), level, record.name, record.getMessage(), fields))

    def after(self, number: int, limit: int) -> list[LogEntry]:
        """The latest `limit` lines that came after this one, the oldest first."""
        return [entry for entry in self._entries.copy() if entry.number > number][-limit:]


def _plain(value: Any) -> Any:
    """A value that JSON has; other values as texts."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    is_plain = value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and value - value == 0)
    return value if is_plain else str(value)
