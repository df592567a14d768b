"""A daemon inside this process, for `slmops run` when none is running: on a free loopback port, gone at the end."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from server.cli.daemon import Daemon, api_key_of
from server.cli.failures import CommandFailed

if TYPE_CHECKING:
    import uvicorn

    from server.settings.daemon import Settings

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.01


@contextmanager
def daemon_in_process(settings: Settings) -> Iterator[Daemon]:
    """Serves the app in a thread; however the block is left, the server then shuts down and its workers end.

    Jobs stay where they are: they are a daemon's, and would be cut short here. Only this process has its key.
    """
    import uvicorn
    from pydantic import SecretStr

    from server import logs
    from server.app import create_app

    logs.configure(settings.log_level, settings.log_format)
    settings = settings.model_copy(update={"api_key": SecretStr(secrets.token_urlsafe(32)), "host": "127.0.0.1"})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = create_app(settings, runs_jobs=False)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="slmops-in-process", daemon=True)
        thread.start()
        try:
            _wait_until_started(server, thread)
            with Daemon(f"http://127.0.0.1:{listener.getsockname()[1]}", api_key_of(settings)) as daemon:
                yield daemon
        finally:
            server.should_exit = True
            thread.join(_STOP_TIMEOUT_S)


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not server.started:
        thread.join(_POLL_S)
        if not thread.is_alive() or time.monotonic() > deadline:
            raise CommandFailed("the server did not start in this process; run `slmops serve` to see why")
