"""What is told to who asks for a model that cannot be had, or not now: each with what to do. Pure."""

from __future__ import annotations

from runtime.errors import EngineDead, NotReady


def draining() -> NotReady:
    return NotReady("The server is shutting down. Retry in a moment.", code="draining", retry_after_s=5.0)


def still_loading(label: str, timeout_s: float) -> NotReady:
    return NotReady(f"{label} is still loading after {timeout_s:g} s. Retry in a moment.", code="model_loading", retry_after_s=2.0)


def being_unloaded(label: str) -> NotReady:
    return NotReady(f"{label} is being unloaded. Retry in a moment.", code="unloading", retry_after_s=1.0)


def being_restarted(label: str) -> EngineDead:
    return EngineDead(f"The worker of {label} is being restarted. Retry the request.", retry_after_s=1.0)


def not_loadable(label: str, error: BaseException) -> NotReady:
    """error: one that says itself what was wrong stays as it is."""
    if isinstance(error, NotReady):
        return error
    return NotReady(f"{label} could not be loaded: {type(error).__name__} {error}", code="load_failed")


def no_room(arithmetic: str, *, retry_after_s: float = 0.0) -> NotReady:
    """retry_after_s: 0 when there never will be."""
    remedy = "Raise memory_budget, unload or unpin another model, or lower num_slots, context_length or kv_budget_bytes."
    return NotReady(f"{arithmetic}. {remedy}", code="insufficient_memory", retry_after_s=retry_after_s)
