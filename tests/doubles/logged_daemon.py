"""A daemon as users start it: a process of its own, on a free port, controlled by signals, observed through its log lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
_SERVE = """
import json, sys
from server.app import serve
from server.settings.daemon import Settings
sys.exit(serve(Settings(**json.loads(sys.argv[1]))))
"""


class DaemonProcess:
    """`with DaemonProcess(home) as daemon:`; it listens when the block begins, and is gone when it ends. lines: its log so far."""

    def __init__(self, home: Path, **settings: Any) -> None:
        chosen = {"engine": "fake", "home": str(home), "port": 0, "log_format": "json", "num_slots": 4} | settings
        self.lines: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, json.dumps(chosen)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=home,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def __enter__(self) -> Self:
        self.url = str(self.wait_for("listening")["url"])
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def wait_for(self, event: str) -> dict[str, Any]:
        """The next log line of this event."""
        assert self._process.stderr is not None
        for text in self._process.stderr:
            line = _parsed(text)
            self.lines.append(line)
            if line["event"] == event:
                return line
        raise AssertionError(f"the daemon ended before it logged {event!r}; it logged: {self.lines}")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, timeout_s: float = 20) -> int:
        """Waits for the exit code, and reads the rest of the log."""
        _, rest = self._process.communicate(timeout=timeout_s)
        self.lines += [_parsed(text) for text in rest.splitlines()]
        return self._process.returncode


def _parsed(text: str) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(text) if text.startswith("{") else {"event": text.strip()}
    return line
