"""Where a JSON value ends, found as its text comes. Looks at brackets, strings and characters; does not build the value."""

from __future__ import annotations

_CLOSERS = {"{": "}", "[": "]"}
_SPACES = " \t\n\r"
_SCALARS = frozenset("+-.0123456789abcdefghijklmnopqrstuvwxyzE")  # of numbers, true, false, null


class JsonValue:
    """is_complete: the value ended. is_broken: what came next is in no JSON value; it was not read."""

    __slots__ = ("_closers", "_escaped", "_in_scalar", "_in_string", "is_broken", "is_complete")

    def __init__(self) -> None:
        self._closers: list[str] = []
        self._in_string = self._escaped = self._in_scalar = False
        self.is_complete = self.is_broken = False

    def scan(self, text: str, start: int) -> int:
        """Reads on from `start`, where the last scan stopped. Returns the place behind what belongs to the value."""
        for at in range(start, len(text)):
            if self._in_string:
                self._read_in_string(text[at])
            elif not self._read(text[at]):
                return at
            if self.is_complete:
                return at + 1
        return len(text)

    def _read_in_string(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._in_string = False
            self.is_complete = not self._closers

    def _read(self, char: str) -> bool:
        """Whether the character belongs to the value."""
        if self._in_scalar and char not in _SCALARS:
            self._in_scalar = False
            if not self._closers:
                self.is_complete = True
                return False
        if char == '"':
            self._in_string = True
        elif char in _CLOSERS:
            self._closers.append(_CLOSERS[char])
        elif self._closers and char == self._closers[-1]:
            self._closers.pop()
            self.is_complete = not self._closers
        elif char in _SCALARS:
            self._in_scalar = True
        elif not self._closers or (char not in _SPACES and char not in ",:"):
            self.is_broken = True
            return False
        return True
