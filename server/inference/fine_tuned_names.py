"""Names of tuned models as OpenAI writes them, `ft:BASE:local:SUFFIX:ID`, and as the registry does, `ft-SUFFIX-ID`. Pure."""

from __future__ import annotations

import re
from typing import Any

ORGANISATION = "local"
CHECKPOINT = ":ckpt-step-"  # after a tuned model's name, before the step
_REGISTERED = re.compile(r"ft-(?:(.+)-)?([0-9a-f]{8})")
_WRITTEN = re.compile(r"ft:([^:]+):local:([^:]*):([0-9a-f]{8})")


def registered_name(suffix: str | None, id_: str) -> str:
    """id_: eight hexadecimal digits."""
    return f"ft-{suffix}-{id_}" if suffix else f"ft-{id_}"


def written_name(base: str, registered: str) -> str | None:
    """base: the name that was tuned. None when the registered name is not a tuned model's."""
    match = _REGISTERED.fullmatch(registered)
    return match and f"ft:{base}:{ORGANISATION}:{match[1] or ''}:{match[2]}"


def registered_of(written: str) -> str | None:
    """None when it is no such name."""
    match = _WRITTEN.fullmatch(written)
    return match and registered_name(match[2] or None, match[3])


def as_registered(value: Any) -> Any:
    """The registry's names in place of OpenAI's, in a text, or wherever they are in JSON values."""
    if isinstance(value, dict):
        return {key: as_registered(each) for key, each in value.items()}
    if isinstance(value, list):
        return [as_registered(each) for each in value]
    return (registered_of(value) or value) if isinstance(value, str) else value
