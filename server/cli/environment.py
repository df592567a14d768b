"""What a daemon finds around it when it starts: its home folder, disk, memory, port. Looks, and changes nothing."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import psutil

from model_registry.disk import who_may_enter
from runtime.machine.installation import Finding, Status
from server.cli.disk import disk_warnings
from server.cli.terminal import size
from server.settings.daemon import Settings

_LITTLE_DISK_BYTES = 2 << 30  # a small model, fetched and converted
_LITTLE_MEMORY_BYTES = 1 << 30  # a small model, loaded


def check_home(home: Path) -> Finding:
    """Whether files can be written there, or a folder be made."""
    there = _nearest(home)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        remedy = "make it writable, or set SLMOPS_HOME to a folder of yours"
        return Finding("home", Status.PROBLEM, f"{home} cannot be written to", remedy)
    if (mode := who_may_enter(home)) is not None:
        return Finding("home", Status.NOTE, f"{home} may be entered by other users of this machine ({mode})", f"chmod 700 {home}")
    return Finding("home", Status.OK, str(home) if there == home else f"{home}, to be created")


def check_disk(settings: Settings) -> Finding:
    """Whether a small model fits, and what the limits on the disk say."""
    free = shutil.disk_usage(_nearest(settings.home)).free
    if free < _LITTLE_DISK_BYTES:
        remedy = "free some space (`slmops disk --all`, `slmops gc`), or set SLMOPS_HOME to a larger disk"
        return Finding("disk", Status.PROBLEM, f"{size(free)} free; a small model needs up to {size(_LITTLE_DISK_BYTES)}", remedy)
    warnings = disk_warnings(settings)
    if warnings:
        remedy = "`slmops disk --all` shows what takes the room; remove something, or raise the limit in slmops.toml"
        return Finding("disk", Status.NOTE, f"{size(free)} free. {' '.join(warnings)}", remedy)
    return Finding("disk", Status.OK, f"{size(free)} free")


def check_memory() -> Finding:
    memory = psutil.virtual_memory()
    seen = f"{size(memory.available)} of {size(memory.total)} available"
    if memory.available < _LITTLE_MEMORY_BYTES:
        message = f"{seen}; a small model needs about {size(_LITTLE_MEMORY_BYTES)}"
        return Finding("memory", Status.NOTE, message, "close other programs, or stop models")
    return Finding("memory", Status.OK, seen)


def check_port(host: str, port: int, is_daemon: Callable[[], bool]) -> Finding:
    """is_daemon: whether what listens there is slmops. Port 0 means any."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return Finding("port", Status.OK, f"{host} port {port} is free")
    except OSError as error:
        if error.errno == errno.EADDRINUSE and is_daemon():
            return Finding("port", Status.OK, f"a daemon answers at {host} port {port}")
        remedy = f"stop the other program, or choose another: slmops serve --port {port + 1}"
        return Finding("port", Status.PROBLEM, f"{host} port {port} cannot be used: {error.strerror or error}", remedy)


def _nearest(folder: Path) -> Path:
    """The folder itself, or the first above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())
