"""keep_alive as people write it: Ollama's notation, which is Go's durations and plain seconds."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from runtime.pool.loaded_model import FOREVER
from server.settings.units import KEPT_FOREVER, KeepAlive, keep_alive_s, parse_keep_alive, parse_span

pytestmark = pytest.mark.unit

UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
PARTS = st.lists(st.tuples(st.integers(0, 99), st.sampled_from(sorted(UNITS_S))), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("10m", 600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("250ms", 0.25),
        (" 5m ", 300),
        ("90", 90),
        (90, 90),
        (0.5, 0.5),
        ("1d", 86_400),
    ],
)
def test_a_duration_is_seconds(written: Any, seconds: float) -> None:
    assert parse_keep_alive(written) == pytest.approx(seconds)


@pytest.mark.parametrize("written", [0, 0.0, "0", "0s", "-0"])
def test_zero_unloads_at_once(written: Any) -> None:
    assert keep_alive_s(parse_keep_alive(written)) == 0


@pytest.mark.parametrize("written", [-1, -0.5, "-1", "-1s", "-10m", "-1h30m", float("-inf")])
def test_anything_negative_is_for_ever(written: Any) -> None:
    assert parse_keep_alive(written) == KEPT_FOREVER
    assert keep_alive_s(parse_keep_alive(written)) == FOREVER


@given(PARTS)
def test_parts_add_up(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert parse_keep_alive(text) == pytest.approx(sum(number * UNITS_S[unit] for number, unit in parts))


@given(st.text(max_size=12) | st.floats() | st.integers())
def test_whatever_is_written_is_seconds_or_refused(written: Any) -> None:
    try:
        seconds = parse_keep_alive(written)
    except ValueError:
        return
    assert seconds == KEPT_FOREVER or 0 <= seconds < FOREVER


@pytest.mark.parametrize(
    "written", ["", "m", "-", "5 m", "5min", "1h 30m", "m5", "5m-", "٥m", "1e3", "9" * 400, None, True, [], {}, float("nan"), 1e12]
)
def test_anything_else_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match=r'must be seconds or a duration such as "10m"'):
        parse_keep_alive(written)


@given(st.text("0123456789.-msdh ", max_size=4))
def test_the_document_says_what_is_read(written: str) -> None:
    """The pattern in the OpenAPI document. (Longer ones may be more than the ten years that are possible.)"""
    _, text = TypeAdapter(KeepAlive).json_schema()["anyOf"]
    try:
        parse_keep_alive(written)
    except ValueError:
        assert not re.search(text["pattern"], written)
    else:
        assert re.search(text["pattern"], written)


@pytest.mark.parametrize("parse", [parse_keep_alive, parse_span])
@pytest.mark.parametrize("written", ["1s" * 40, "1" * 1_000_000 + "x", "1." * 500_000])
def test_a_long_text_is_no_duration(parse: Callable[[object], float], written: str) -> None:
    """And none is searched: the time that takes grows with the square of its length."""
    with pytest.raises(ValueError, match="must be seconds or a duration"):
        parse(written)
