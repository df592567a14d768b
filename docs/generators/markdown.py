"""Markdown as the reference pages are written: a title, tables, cells that cannot break a table. Knows no content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

NOTICE = "<!-- Made by `make docs` from the code. Do not edit. -->"


def page(title: str, introduction: str, *parts: str) -> str:
    """A whole page, as it stands in its file."""
    return "\n\n".join([NOTICE, f"# {title}", introduction, *(part for part in parts if part)]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns that are empty in every row are left out, and without rows there is no table."""
    found = [tuple(_cell(cell) for cell in row) for row in rows]
    kept = [index for index in range(len(header)) if any(row[index] for row in found)]
    return "\n".join(_lines([[row[index] for index in kept] for row in (tuple(header), *found)])) if found else ""


def code(text: str) -> str:
    """A code span; empty text stays empty."""
    return f"`{text}`" if text else ""


def sentence(text: str) -> str:
    """With a full stop."""
    text = " ".join(text.split())
    return text if not text or text.endswith((".", "?", "!", ":")) else f"{text}."


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(rows[0])} |"
    yield f"|{'---|' * len(rows[0])}"
    yield from (f"| {' | '.join(row)} |" for row in rows[1:])
