"""Parameters of a chat: what `/set parameter NAME VALUE` accepts, by Ollama's names and OpenAI's. Knows no terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from model_registry.name_matching import nearest_names
from server.cli.failures import CommandFailed

FIELDS: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "max_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "stop": "stop",
    "repeat_penalty": "repetition_penalty",
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
"""The request's field of each name."""
_INSTEAD = {
    "num_ctx": "the context length belongs to the model: `slmops reload MODEL --context-length N`",
    "num_thread": "threads belong to the model: `slmops reload MODEL --threads N`",
    "num_gpu": "where a model runs belongs to the model: `slmops reload MODEL --providers cuda,cpu`",
}


def field_of(name: str) -> str:
    """Raises CommandFailed for a name that is no parameter."""
    if name in FIELDS:
        return FIELDS[name]
    if name in _INSTEAD:
        raise CommandFailed(_INSTEAD[name])
    near = nearest_names(name, FIELDS)
    meant = f"Did you mean {' or '.join(near)}?" if near else f"Parameters: {', '.join(FIELDS)}."
    raise CommandFailed(f"{name} is no parameter. {meant}")


def read_value(name: str, text: str) -> Any:
    """The value of a request's field, within the bounds that the server has for it. Raises CommandFailed."""
    from pydantic import ValidationError

    from server.dialects.openai.wire.chat import ChatRequest

    field = field_of(name)
    values = shlex.split(text) if field == "stop" else [text]
    value: Any = values if field == "stop" else _number(text)
    try:
        ChatRequest.model_validate({"messages": [{"role": "user", "content": "-"}], field: value})
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise CommandFailed(f"{name} {text}: {reason[:1].lower()}{reason[1:]}") from error
    return value


def _number(text: str) -> int | float | str:
    """The text itself where it is no number."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
