"""Reads JSON Lines into examples. Everything wrong becomes a problem with its line; no problem quotes the data.

What can be left out without harm is: lines that are there already, and lines of validation data that are learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from jobs.datasets.examples import BadLine, Example, example_of
from jobs.datasets.lines import MAX_LINE_BYTES, beginning_of, broken_text, lines_of, of_broken_utf8, what_it_looks_like
from jobs.task import Problem

MAX_PROBLEMS = 1000
FEW = 5  # lines that a sentence names


@dataclass(slots=True)
class LeftOut:
    """Lines that are not used. first: at most FEW of them."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        self.count += 1
        if len(self.first) < FEW:
            self.first.append(line)

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.first)) + (", ..." if self.count > len(self.first) else "")
        return f"{self.count} line{'s' if self.count > 1 else ''} ({shown})"


@dataclass(slots=True)
class Data:
    """A file's examples; sha256: of its bytes. problems: at most MAX_PROBLEMS; num_problems: all.

    known: fingerprints of its examples; duplicates: of earlier lines, leaked: of data that is learned, both left out.
    """

    path: Path
    examples: list[Example] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    num_problems: int = 0
    sha256: str = ""
    num_examples: int = 0
    known: set[bytes] = field(default_factory=set)
    duplicates: LeftOut = field(default_factory=LeftOut)
    leaked: LeftOut = field(default_factory=LeftOut)

    def blame(self, line: int | None, message: str, code: str) -> None:
        self.num_problems += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(message, file=str(self.path), line=line, code=code))

    def left_out(self) -> tuple[str, ...]:
        """A sentence for each reason for which lines are not used."""
        sentences = []
        if self.duplicates.count:
            sentences.append(f"{self.path.name}: {self.duplicates} left out as duplicates of earlier ones.")
        if self.leaked.count:
            sentences.append(
                f"{self.path.name}: {self.leaked} left out, which are training data: validation must be new to the model."
            )
        return tuple(sentences)


def read_data(path: Path, *, objective: str = "supervised", text_template: str | None = None) -> Data:
    """objective: supervised or dpo. text_template: `{column}` in place of each column's text; then any columns may be there."""
    data = Data(path)
    data.examples.extend(stream(data, objective=objective, text_template=text_template))
    return data


def stream(
    data: Data, *, objective: str = "supervised", text_template: str | None = None, learned: Set[bytes] = frozenset()
) -> Iterator[Example]:
    """The examples one by one, none of which it keeps; fills in everything else of `data`. learned: fingerprints of training data.

    Takes some 100 bytes per line, and one line.
    """
    if not _is_readable(data):
        return
    digest = hashlib.sha256()
    with data.path.open("rb") as file:
        source = _Digesting(file, digest)
        for line, raw in enumerate(lines_of(source), 1):  # type: ignore[arg-type]
            if raw is None:
                data.blame(line, f"It is longer than {MAX_LINE_BYTES >> 20} MiB, which no example is: split it.", "line_too_long")
                continue
            if not raw.strip():
                continue
            try:
                example = example_of(line, _object(raw), objective, text_template)
            except _NotUtf8:
                what, remedy, code = of_broken_utf8(raw)
                data.blame(line, f"The file {what}. {remedy}", code)
                return
            except BadLine as error:
                data.blame(line, error.message, error.code)
                continue
            mark = fingerprint(example)
            if mark in data.known:
                data.duplicates.add(line)
            elif mark in learned:
                data.leaked.add(line)
            else:
                data.known.add(mark)
                data.num_examples += 1
                yield example
    data.sha256 = digest.hexdigest()
    if not data.num_examples and not data.problems:
        _blame_emptiness(data)


def _is_readable(data: Data) -> bool:
    if not data.path.is_file():
        advice = "" if data.path.is_absolute() else " Give its whole path, as the daemon's machine has it."
        data.blame(None, f"There is no such file.{advice}", "file_not_found")
        return False
    found = what_it_looks_like(beginning_of(data.path))
    if found is not None:
        what, remedy, code = found
        data.blame(None, f"The file {what}. {remedy}", code)
    return found is None


def _blame_emptiness(data: Data) -> None:
    if data.leaked.count:
        data.blame(None, "All of its rows are training data: validation must be new to the model.", "leaked")
    else:
        data.blame(None, "The file has no examples.", "empty_file")


class _NotUtf8(Exception):
    """The line is no UTF-8."""


class _Digesting:
    """Reads lines of a file, all of whose bytes are counted in."""

    def __init__(self, file: BinaryIO, digest: Any) -> None:
        self._file = file
        self._digest = digest

    def readline(self, size: int) -> bytes:
        raw = self._file.readline(size)
        self._digest.update(raw)
        return raw


def fingerprint(example: Example) -> bytes:
    """A digest that is equal for examples of equal content, wherever they are."""
    fields = {name: getattr(example, name) for name in example.__slots__ if name != "line"}
    return hashlib.blake2b(msgspec.json.encode(fields, order="deterministic"), digest_size=16).digest()


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _why_not_json(raw, error) from None
    if not isinstance(value, dict):
        raise BadLine("It is JSON, but no object: write one object in a line.", "not_an_object")
    return value


def _why_not_json(raw: bytes, error: Exception) -> Exception:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return _NotUtf8()
    if isinstance(error, RecursionError):
        return BadLine("It is nested too deeply.", "not_json")
    if "surrogate" in str(error) and (place := broken_text(text)) is not None:
        return BadLine(f"{place} has half of a surrogate pair (as \\ud83d alone): write the whole character.", "lone_surrogate")
    return BadLine(f"It is not JSON: {error}.", "not_json")
