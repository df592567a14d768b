"""Which known name a typed text means, and which it may have meant. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from model_registry.names import parse_label

_MAX_CHARS = 256  # of a text that is compared: longer ones are no name of a model
_MOST = 3
_SIMILARITY = 0.6  # of difflib's ratio: one letter wrong in four still matches, another model's name does not


def same_name(text: str, known: Collection[str]) -> str | None:
    """The known name that equals the text, or the only one that does without regard to case."""
    if text in known:
        return text
    folded = [name for name in known if name.casefold() == text.casefold()]
    return folded[0] if len(folded) == 1 else None


def same_label(text: str, known: Collection[str]) -> str:
    """The label (`name`, `name:NUMBER`, `name:alias`) with its model's name as it is known; unchanged where none is meant."""
    name, colon, tag = text.strip().partition(":")
    found = same_name(name, known)
    return text if found is None else f"{found}{colon}{tag.lower()}"


def nearest_names(text: str, known: Iterable[str]) -> list[str]:
    """At most three known names that resemble the text, the most similar first."""
    if len(text) > _MAX_CHARS:
        return []
    folded: dict[str, str] = {}
    for name in known:
        folded.setdefault(name.casefold(), name)
    wanted = parse_label(text).name.casefold().rpartition("/")[2]
    close = get_close_matches(wanted, folded, _MOST, _SIMILARITY)
    begins = [name for name in folded if wanted and name.startswith(wanted)]
    return [folded[name] for name in dict.fromkeys([*begins, *close])][:_MOST]


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """` Did you mean a, b or c?` with a space before it; empty where no known name resembles the text."""
    *others, last = nearest_names(text, known) or [""]
    return f" Did you mean {', '.join(others)}{' or ' if others else ''}{last}?" if last else ""
