"""Follows what other processes write: a thread renews what is held in memory of the database, ten times a second."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

LOOK_EVERY_S = 0.1
_log = logging.getLogger("slmops.database")


@dataclass(frozen=True, slots=True)
class Renewal:
    """run: reads anew what has changed; cheap when nothing has. complaint: the log's line when it fails after it had worked."""

    run: Callable[[], None]
    complaint: str


class ChangeWatch:
    """start() to follow, close() to end; both off the event loop or before it. What cannot be read stays as it was."""

    def __init__(self, *renewals: Renewal) -> None:
        self._renewals = renewals
        self._failed: set[Renewal] = set()
        self._wake = threading.Event()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._watch, name="database-watch", daemon=True)
        self._thread.start()

    def look_soon(self) -> None:
        """Somebody has probably written: looks at once, off the caller's thread."""
        self._wake.set()

    def close(self) -> None:
        self._is_closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._is_closing:
            self._wake.wait(LOOK_EVERY_S)
            self._wake.clear()
            for renewal in self._renewals:
                self._renew(renewal)

    def _renew(self, renewal: Renewal) -> None:
        try:
            renewal.run()
            self._failed.discard(renewal)
        except Exception as error:
            if renewal not in self._failed:
                _log.error(renewal.complaint, exc_info=error)
            self._failed.add(renewal)
