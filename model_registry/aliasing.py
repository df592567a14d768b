"""Where aliases point after a change: pure decisions on values. Knows no database.

`live` is what a bare name means; `previous` is what `live` was, for a quick way back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from model_registry.records import LIVE, Alias

PREVIOUS = "previous"


def plan_point(aliases: Sequence[Alias], model: str, name: str, number: int, weight: float = 1.0) -> tuple[Alias, ...]:
    """`name` points to `number`; when that moves `live`, `previous` points to where `live` was."""
    by_name = {alias.name: alias for alias in aliases}
    old = by_name.get(name)
    if name == LIVE and old is not None and old.number != number:
        by_name[PREVIOUS] = Alias(model, PREVIOUS, old.number)
    by_name[name] = Alias(model, name, number, weight)
    return tuple(by_name.values())


def plan_removal(aliases: Sequence[Alias], number: int, remaining: Collection[int]) -> tuple[Alias, ...]:
    """Version `number` goes. `live` falls back to `previous`, else to the newest left; other aliases to it go."""
    kept = {alias.name: alias for alias in aliases if alias.number in remaining}
    live = next((alias for alias in aliases if alias.name == LIVE), None)
    if live is not None and live.number == number and remaining:
        fallback = kept.pop(PREVIOUS, None)
        kept[LIVE] = Alias(live.model, LIVE, fallback.number if fallback else max(remaining))
    return tuple(kept.values())
