"""Fields that have two names: a refusal names the one that the request has. The runtime knows the newer names of tools only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import InvalidRequest
from server.openai.wire.chat import ChatRequest


@contextmanager
def named_as_in(request: ChatRequest) -> Iterator[None]:
    """InvalidRequests pass with their param as this request says it."""
    try:
        yield
    except InvalidRequest as refusal:
        if refusal.param is not None:
            field, dot, rest = refusal.param.partition(".")
            refusal.param = _names(request).get(field, field) + dot + rest
        raise


def _names(request: ChatRequest) -> dict[str, str]:
    names: dict[str, str] = {}
    if request.functions:
        names |= {"tools": "functions", "tool_choice": "function_call"}
    if request.max_completion_tokens is not None:
        names |= {"max_tokens": "max_completion_tokens"}
    return names
