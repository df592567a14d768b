"""Text of others on one's own lines: what would move a terminal's cursor, end a line or turn its direction is written out."""

from __future__ import annotations

import re

_C0 = "\\x00-\\x1f"
_OTHERS = "\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff"  # C1, line ends, direction overrides, half pairs
_ALL = re.compile(f"[{_C0}{_OTHERS}]")


def visible(text: str, *, keep: str = "") -> str:
    """Control characters as `\\x1b` and `\\u202e`, but for those in `keep`. Of JSON whose line ends are kept, it makes JSON."""
    return _ALL.sub(lambda found: found[0] if found[0] in keep else _written_out(found[0]), text)


def _written_out(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}"
