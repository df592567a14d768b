"""How the end of a worker is described: to the requests that it had, to the one that it ended for, and to people. Pure."""

from __future__ import annotations

import signal

from runtime.errors import EngineDead, InvalidRequest


def dead(label: str, hung: str | None) -> EngineDead:
    """hung: why the watchdog ended it; None: it ended by itself."""
    how = "ended unexpectedly" if hung is None else f"was ended because {hung}"
    return EngineDead(
        f"The worker that ran {label} {how}; it is being restarted. Retry the request.", code="engine_dead", retry_after_s=1.0
    )


def unpreparable(hung: str) -> InvalidRequest:
    """For the request that the worker was ended for: it must not come back by itself, as clients send again what is 503."""
    return InvalidRequest(
        f"This request could not be prepared for the model: {hung}. Its text takes the model's tokenizer too long, or its grammar "
        "takes the compiler too long; send another.",
        code="preparation_timeout",
    )


def describe_exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"it ended with exit code {code}; the daemon's standard error says more."
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    hint = " The system may have run out of memory." if name == "SIGKILL" else ""
    return f"it was ended by {name}.{hint}"
