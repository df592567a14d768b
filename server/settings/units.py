"""Units of settings: durations such as `5m` (Ollama's `keep_alive` among them), and memory such as `80%` or `4GiB`. Pure."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, ByteSize, TypeAdapter, WithJsonSchema

from runtime.pool.loaded_model import FOREVER
from runtime.pool.memory import machine_memory_bytes

KEPT_FOREVER = -1.0
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
_MOST_S = 10 * 365 * 86_400
_MOST_CHARACTERS = 64  # the patterns take time that grows with the square of a text


def parse_keep_alive(value: object) -> float:
    """Seconds, or KEPT_FOREVER for anything negative. `600`, `"10m"`, `"1h30m"`, `-1`, `"0"`. Raises ValueError."""
    if isinstance(value, str):
        value = _seconds(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float) or not value == value or value > _MOST_S:
        raise ValueError('must be seconds or a duration such as "10m" or "1h30m"; -1 keeps the model for ever, 0 unloads it')
    return KEPT_FOREVER if value < 0 else float(value)


def keep_alive_s(keep_alive: float) -> float:
    """The keep-alive in seconds for the pool; FOREVER if it is negative."""
    return FOREVER if keep_alive < 0 else keep_alive


def _seconds(text: str) -> float | None:
    if len(text) > _MOST_CHARACTERS:
        return None
    if _NUMBER.fullmatch(text):
        return float(text)
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    parts = _PART.findall(digits)
    if not parts or "".join(number + unit for number, unit in parts) != digits:
        return None
    return sign * sum(float(number) * _UNITS_S[unit] for number, unit in parts)


_TEXT = r"^\s*-?([0-9]+(\.[0-9]+)?|([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+)\s*$"  # for other readers of the document
_SCHEMA = {
    "anyOf": [{"type": "number", "maximum": _MOST_S}, {"type": "string", "pattern": _TEXT}],
    "description": 'Seconds or "10m"; -1: for ever; 0: unload at once.',
}
KeepAlive = Annotated[float, BeforeValidator(parse_keep_alive), WithJsonSchema(_SCHEMA)]


def parse_span(value: object) -> float:
    """Seconds, above 0. `3600`, `"90d"`, `"1h30m"`. Raises ValueError."""
    seconds = _seconds(value.strip()) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _MOST_S:
        raise ValueError('must be seconds or a duration such as "90d" or "12h", above 0 and at most ten years')
    return float(seconds)


_SPAN_SCHEMA = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "maximum": _MOST_S},
        {"type": "string", "pattern": r"^\s*([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+\s*$"},
    ],
    "description": 'Seconds or "90d".',
}
Span = Annotated[float, BeforeValidator(parse_span), WithJsonSchema(_SPAN_SCHEMA)]


_SIZE: TypeAdapter[ByteSize] = TypeAdapter(ByteSize)


def _share_or_size(value: object) -> object:
    text = str(value).strip()
    try:
        sound = 0 < float(text[:-1]) <= 100 if text.endswith("%") else _SIZE.validate_python(value) >= 1 << 20
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("must be a share of this machine's memory such as 80%, or a size such as 4GiB (at least 1MiB)")
    return text


MemoryShare = Annotated[str, BeforeValidator(_share_or_size)]


def bytes_of(share: str) -> int:
    """share: a valid MemoryShare."""
    if share.endswith("%"):
        return int(machine_memory_bytes() * float(share[:-1]) / 100)
    return int(_SIZE.validate_python(share))
