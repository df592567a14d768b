"""How log lines look: text for people, JSON for machines. Ids, counts and times, never what users wrote or received.

Callers log an event name and pass its values as `extra={"fields": {...}}`. `visible` writes out characters of foreign text that
would move a terminal's cursor, end a line or turn its direction.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any, TextIO

from server.service_manager import JournalFormatter, is_journal

_C0 = "\\x00-\\x1f"
_OTHERS = "\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff"  # C1, line ends, direction overrides, half pairs
_ALL = re.compile(f"[{_C0}{_OTHERS}]")


def visible(text: str, *, keep: str = "") -> str:
    """Control characters as `\\x1b` and `\\u202e`, but for those in `keep`. Of JSON whose line ends are kept, it makes JSON."""
    return _ALL.sub(lambda found: found[0] if found[0] in keep else _written_out(found[0]), text)


def _written_out(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}"


def configure(level: str, log_format: str, *further: logging.Handler) -> None:
    """Sends every line of the process to standard error, with its priority where that is systemd's journal, and to further
    handlers. The HTTP server's own lines are kept to warnings.
    """
    handler = _StandardError()
    formatter = JsonFormatter() if log_format == "json" else TextFormatter()
    handler.setFormatter(JournalFormatter(formatter) if is_journal(sys.stderr) else formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler, *further]
    root.setLevel(level.upper())
    for noisy in ("uvicorn", "uvicorn.error", "httpx", "httpcore", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at the time: a command that runs in this process may have replaced it for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def frames_of(error: BaseException) -> list[str]:
    """The stack frames of an exception, outermost first. Its text is left out, since it may quote a user's text."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The values of an event; of an exception its type and frames."""
    fields = dict(getattr(record, "fields", {}))
    if record.exc_info and record.exc_info[1] is not None:
        fields |= {"error": type(record.exc_info[1]).__name__, "frames": frames_of(record.exc_info[1])}
    return fields


class JsonFormatter(logging.Formatter):
    """One JSON object per line, in ASCII: time (Unix seconds), level, logger, event, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": round(record.created, 3), "level": record.levelname.lower(), "logger": record.name}
        whole = line | {"event": record.getMessage()} | fields_of(record)
        try:
            return json.dumps(whole, default=str, allow_nan=False)
        except ValueError:  # a figure that is no number, which JSON has not
            return json.dumps({name: value if isinstance(value, str | int) else str(value) for name, value in whole.items()})


class TextFormatter(logging.Formatter):
    """`12:30:59 INFO event key=value ...`; frames of an exception on lines of their own.

    Whatever a client put into a value stays on its line: control characters are written out.
    """

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        return text_of(clock, record.levelname, record.getMessage(), fields_of(record))


def text_of(clock: str, level: str, event: str, fields: Mapping[str, Any]) -> str:
    """A line for people; several when it has frames."""
    parts = [clock, level, event, *(f"{key}={value}" for key, value in fields.items() if key != "frames")]
    return "\n".join(visible(line) for line in (" ".join(parts), *(f"    {frame}" for frame in fields.get("frames", ()))))
