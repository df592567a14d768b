"""The thread that looks after the disk: collects every minute, warns before it is full, and has the newest figures for metrics."""

from __future__ import annotations

import logging
import threading

from model_registry.disk_space.home_disk import DiskReport, HomeDisk
from model_registry.disk_space.spare import keep_spare
from model_registry.errors import RegistryError

LOOK_EVERY_S = 60.0
_log = logging.getLogger("slmops.disk")


class DiskWatch:
    """start() to look after it, close() to end; both off the event loop or before it. newest: None before the first look.

    changes: whether something may be removed; else it only looks.
    """

    def __init__(self, disk: HomeDisk, *, changes: bool = True) -> None:
        self._disk = disk
        self._changes = changes
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._warned: set[str] = set()
        self.newest: DiskReport | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._watch, name="disk-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def report(self) -> DiskReport:
        """The disk as it is now. Waits for the disk. Raises RegistryError."""
        self.newest = report = self._disk.report()
        return report

    def look(self) -> None:
        """Collects, and logs what is nearly full when that has changed. Raises RegistryError."""
        if self._changes:
            self._disk.collect()
            keep_spare(self._disk.home)
        report = self.report()
        for warning in report.warnings:
            if warning.limit not in self._warned:
                _log.warning("the disk is nearly full", extra={"fields": {"limit": warning.limit, "why": warning.message}})
        self._warned = {warning.limit for warning in report.warnings}

    def _watch(self) -> None:
        while not self._wake.is_set():
            try:
                self.look()
            except RegistryError as error:
                _log.warning("the disk was not looked after", extra={"fields": {"why": error.message}})
            except Exception as error:
                _log.error("the disk was not looked after", exc_info=error)
            self._wake.wait(LOOK_EVERY_S)
