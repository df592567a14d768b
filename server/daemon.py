"""The process that serves: its socket, its signals, its end. Knows uvicorn; knows an app only by its drain.

The first SIGINT or SIGTERM drains: probes answer not ready, new requests get 503, running ones finish within the grace period
and are then ended with an error. The second ends at once.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from server.http.protocol import ConnectionLimits, protocol_with
from server.service_manager import notify
from server.settings.daemon import Settings

_CLOSE_CONNECTIONS_S = 1
_BACKLOG = 2048
_KEEP_ALIVE_S = 75
_LEAST_CONNECTIONS = 8
_OTHER_FILES = 128
_log = logging.getLogger("slmops.daemon")


class CannotListenError(Exception):
    """The address cannot be bound; the message says why and what to do."""


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket. Raises CannotListenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise CannotListenError(_why_not(error, host, port)) from None


def _why_not(error: Exception, host: str, port: int) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop what uses it (another slmops?), or choose another with --port"
    if number == errno.EACCES:
        return f"port {port} on {host} needs privileges: choose one above 1023 with --port"
    if isinstance(error, socket.gaierror) or number == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: choose another with --host"
    return f"cannot listen on {host} port {port}: {error}; choose others with --host and --port"


def _connection_limits(settings: Settings) -> ConnectionLimits:
    """Limits connections to the files that the process may open, less those of workers, databases and logs."""
    return ConnectionLimits(
        header_s=settings.header_timeout_s,
        body_s=settings.body_timeout_s,
        write_s=settings.write_timeout_s,
        max_connections=min(settings.max_connections, max(_LEAST_CONNECTIONS, _most_open_files() - _OTHER_FILES)),
    )


def _most_open_files() -> int:
    try:
        import resource
    except ImportError:  # Windows, where sockets are not among them
        return sys.maxsize
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if most == resource.RLIM_INFINITY else most


class Daemon(uvicorn.Server):
    """uvicorn with our end: at the first signal `drain` runs, with connections still accepted, and then it stops."""

    def __init__(self, app: ASGIApp, settings: Settings, drain: Callable[[], Awaitable[None]]) -> None:
        config = uvicorn.Config(
            app,
            http=protocol_with(_connection_limits(settings)),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # else any local program could set the client address
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_CLOSE_CONNECTIONS_S,
        )
        super().__init__(config)
        self._settings = settings
        self._drain = drain
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_ending = False
        self._ending: asyncio.Task[None] | None = None  # kept, as the loop does not

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            _log.info("listening", extra={"fields": {"url": f"http://{address}"}})
        if self.started:
            notify("READY=1")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's, does not raise the signal again at the end: a drained server has exit code 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The second signal must work even when the event loop does not: the system cleans up, and workers see our end."""
        name = signal.Signals(sig).name
        if self._is_ending:
            _log.warning("ending at once", extra={"fields": {"signal": name}})
            os._exit(128 + sig)
        if self._loop is None:
            raise KeyboardInterrupt
        self._is_ending = True
        self._loop.call_soon_threadsafe(self._on_first_signal, name)

    def _on_first_signal(self, name: str) -> None:
        fields = {"signal": name, "grace_s": self._settings.shutdown_grace_s}
        _log.info("draining; a second signal ends at once", extra={"fields": fields})
        notify("STOPPING=1")
        self._ending = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        try:
            await self._drain()
        finally:
            self.should_exit = True
