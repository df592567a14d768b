"""An answer as it is generated: what was read of it, which deltas follow, and what waits for more text. Knows no family.

Deltas are the pieces of an answer, in whatever form its model writes it. `JsonValue` finds where a JSON value ends. A family's
script reads by a `Reader`; `ScriptedParser` runs the script as text comes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """More of the text for the reader. Never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the thought, without its tags. Never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallBegin:
    """A call of the tool `name` begins. index: of the call in the answer, from 0; indices come in order, without holes."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """More of the call's arguments, as JSON text. All of them together are one JSON object, unless the answer was cut."""

    index: int
    text: str


Delta = ContentDelta | ReasoningDelta | ToolCallBegin | ToolCallArguments


class AnswerParser(Protocol):
    """Reads an answer in any pieces: the concatenated result is the same however the text is cut. Never raises."""

    def feed(self, text: str) -> list[Delta]:
        """The deltas of this further text. Text that could still become a mark is held back."""
        ...

    def finish(self) -> list[Delta]:
        """The end of the answer: what was held back. An unfinished call keeps its arguments as far as they came."""
        ...


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
        """Continues at `start`, where the last scan stopped. Returns the position after the characters of the value."""
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
        """Whether the character is part of the value."""
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


T = TypeVar("T")
Script = Generator[None, None, T]


class Reader:
    """The text of one answer, the reading position, and the deltas that were not taken yet.

    A family's syntax is a *script*: a generator that reads through a `Reader` as if the whole answer were there, and yields where
    it must wait for more. So one script reads whole answers and streams alike, and where the text is cut makes no difference.
    """

    __slots__ = ("_at", "_deltas", "_ended", "_mark_from", "_num_calls", "_text")

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._mark_from = 0
        self._ended = False
        self._deltas: list[Delta] = []
        self._num_calls = 0

    # ---- for the caller that feeds it ----

    def feed(self, text: str) -> None:
        self._text += text

    def end(self) -> None:
        """No more text follows."""
        self._ended = True

    def take_deltas(self) -> list[Delta]:
        """The deltas since the last call."""
        deltas, self._deltas = self._deltas, []
        return deltas

    def take_rest(self) -> str:
        """The text that arrived and was not read."""
        text, self._text, self._at = self._text[self._at :], "", 0
        return text

    # ---- for scripts: reading ----

    @property
    def at(self) -> int:
        """The reading position, for `back_to`. Valid until `emit_until`."""
        return self._at

    def back_to(self, place: int) -> None:
        self._at = place

    def peek(self) -> Script[str]:
        """The next character; empty at the end."""
        while self._at == len(self._text) and not self._ended:
            yield
        return self._text[self._at : self._at + 1]

    def spaces(self) -> Script[None]:
        while (yield from self.peek()).isspace():
            self._at += 1

    def accept(self, literal: str) -> Script[bool]:
        """Reads the literal, if the text continues with it."""
        while not self._text.startswith(literal, self._at):
            if self._ended or not literal.startswith(self._text[self._at :]):
                return False
            yield
        self._at += len(literal)
        return True

    def until(self, mark: str, limit: int) -> Script[str | None]:
        """Reads the text before the mark, and the mark. None if it does not occur within `limit` characters."""
        start, end = self._at, self._at + limit + len(mark)
        while (found := self._text.find(mark, start, end)) < 0:
            if self._ended or len(self._text) >= end:
                return None
            yield
        self._at = found + len(mark)
        return self._text[start:found]

    def json(self, on_text: Callable[[str], None] | None = None) -> Script[str | None]:
        """Reads a JSON value and passes its text to `on_text` as it arrives. None if there is none, or it is broken or cut."""
        start, value = self._at, JsonValue()
        while True:
            begin, self._at = self._at, value.scan(self._text, self._at)
            if on_text is not None:
                on_text(self._text[begin : self._at])
            if value.is_complete:
                return self._text[start : self._at]
            if value.is_broken or self._ended:
                return None
            yield

    # ---- for scripts: emitting ----

    def emit_until(self, marks: tuple[str, ...], kind: type[ContentDelta | ReasoningDelta] = ContentDelta) -> Script[str | None]:
        """Emits the text before the first of the marks, without the white space right before it, and reads the mark.

        None: there is no mark, and the answer is emitted to its end.
        """
        while True:
            self._text, self._at = self._text[self._at :], 0
            start, mark = _first_of(marks, self._text)
            if mark is not None:
                before = self._text[:start].rstrip()
                self._emit(before, kind)
                self._mark_from, self._at = len(before), start + len(mark)
                return mark
            self._at = len(self._text) if self._ended else _settled(marks, self._text)
            self._emit(self._text[: self._at], kind)
            if self._ended:
                return None
            yield

    def attempt(self, script: Callable[[Reader], Script[bool]]) -> Script[bool]:
        """Reads what the mark that was just read announces, and the space behind it. If it was none, the mark is content."""
        place = self._at
        if (yield from script(self)):
            yield from self.spaces()
            return True
        self._at = place
        self._emit(self._text[self._mark_from : place], ContentDelta)
        return False

    def begin_call(self, name: str) -> None:
        self._deltas.append(ToolCallBegin(self._num_calls, name))
        self._num_calls += 1

    def emit_arguments(self, text: str) -> None:
        """More of the arguments of the call that began last."""
        if text:
            self._deltas.append(ToolCallArguments(self._num_calls - 1, text))

    def _emit(self, text: str, kind: type[ContentDelta | ReasoningDelta]) -> None:
        if text:
            self._deltas.append(kind(text))


class ScriptedParser:
    """An `AnswerParser` that runs a script. `take_rest` returns what the script leaves unread."""

    __slots__ = ("_reader", "_script", "is_done")

    def __init__(self, script: Callable[[Reader], Script[None]]) -> None:
        self._reader = Reader()
        self._script = script(self._reader)
        self.is_done = False

    def feed(self, text: str) -> list[Delta]:
        self._reader.feed(text)
        return self._run()

    def finish(self) -> list[Delta]:
        self._reader.end()
        return self._run()

    def take_rest(self) -> str:
        return self._reader.take_rest()

    def _run(self) -> list[Delta]:
        if not self.is_done:
            self.is_done = next(self._script, self) is self
        return self._reader.take_deltas()


def _first_of(marks: tuple[str, ...], text: str) -> tuple[int, str | None]:
    """The mark that begins first, the longest of those that begin there."""
    found = [(at, -len(mark), mark) for mark in marks if (at := text.find(mark)) >= 0]
    start, _, mark = min(found, default=(0, 0, None))
    return start, mark


def _settled(marks: tuple[str, ...], text: str) -> int:
    """The length of the text that cannot be part of a mark, nor of the space before one, whatever follows."""
    if not marks:
        return len(text)
    for size in range(min(max(map(len, marks)) - 1, len(text)), 0, -1):
        if any(mark.startswith(text[-size:]) for mark in marks):
            return len(text[:-size].rstrip())
    return len(text.rstrip())
