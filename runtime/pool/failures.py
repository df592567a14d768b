"""The failures of the pool: models that cannot be had, or not now, and workers that ended; each with its remedy. Pure."""

from __future__ import annotations

import signal

from runtime.protocol.errors import EngineDead, InvalidRequest, NotReady


def dead(label: str, hung: str | None) -> EngineDead:
    """hung: why the watchdog killed it; None: it ended on its own."""
    what_happened = "ended unexpectedly" if hung is None else f"was ended because {hung}"
    return EngineDead(
        f"The worker that ran {label} {what_happened}; it is being restarted. Retry the request.",
        code="engine_dead",
        retry_after_s=1.0,
    )


def unpreparable(hung: str) -> InvalidRequest:
    """The error of the request for which the worker was ended. It is no 503, so that clients do not retry it automatically."""
    return InvalidRequest(
        f"This request could not be prepared for the model: {hung}. Its text takes the model's tokenizer too long, or its grammar "
        "takes the compiler too long; send another.",
        code="preparation_timeout",
    )


def describe_exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"it ended with exit code {code}; the daemon's standard error has details."
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    hint = " The system may have run out of memory." if name == "SIGKILL" else ""
    return f"it was ended by {name}.{hint}"


def draining() -> NotReady:
    return NotReady("The server is shutting down. Retry in a moment.", code="draining", retry_after_s=5.0)


def still_loading(label: str, timeout_s: float) -> NotReady:
    return NotReady(f"{label} is still loading after {timeout_s:g} s. Retry in a moment.", code="model_loading", retry_after_s=2.0)


def being_unloaded(label: str) -> NotReady:
    return NotReady(f"{label} is being unloaded. Retry in a moment.", code="unloading", retry_after_s=1.0)


def being_restarted(label: str) -> EngineDead:
    return EngineDead(f"The worker of {label} is being restarted. Retry the request.", retry_after_s=1.0)


def not_loadable(label: str, error: BaseException) -> NotReady:
    """error: one that has its own message for clients is kept."""
    if isinstance(error, NotReady):
        return error
    return NotReady(f"{label} could not be loaded: {type(error).__name__} {error}", code="load_failed")


def no_room(arithmetic: str, *, retry_after_s: float = 0.0) -> NotReady:
    """retry_after_s: 0 when there never will be."""
    remedy = "Raise memory_budget, unload or unpin another model, or lower num_slots, context_length or kv_budget_bytes."
    return NotReady(f"{arithmetic}. {remedy}", code="insufficient_memory", retry_after_s=retry_after_s)
