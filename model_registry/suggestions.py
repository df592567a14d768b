"""Which of the known names somebody probably meant. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_MOST = 3
_LEAST_RATIO = 0.6  # of what two names have in common, as difflib counts it
_LONGEST = 200  # of a text that is compared at all: the time grows with its square


def nearest(text: str, known: Iterable[str]) -> list[str]:
    """At most three of the known names, the nearest first; differences in case do not count. Empty when none is near."""
    by_folded = {name.casefold(): name for name in known}
    if len(text) > _LONGEST:
        return []
    return [by_folded[each] for each in get_close_matches(text.casefold(), by_folded, _MOST, _LEAST_RATIO)]


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """A sentence with a space before it, to end a message with; empty when no known name is near."""
    names = nearest(text, known)
    return f" Did you mean {' or '.join(map(repr, names))}?" if names else ""
