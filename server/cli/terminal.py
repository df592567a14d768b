"""What the terminal shows: tables, JSON, sizes, times, errors.

No control codes are written where there is no terminal, and never those of foreign text. Knows nothing of models or of the daemon.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import typer

from server.logs import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Wide = Annotated[bool, typer.Option("--wide", help="All columns, however narrow the terminal.")]
_LAYOUT = "\n\t"
_WIDTH_OF_PIPES = 240  # a table that another program reads is not cut at 80 columns
_GAP = 2  # characters between two columns
_UNITS = ((1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB"))
_DECIMAL_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
_COUNTS = ((10**9, "B"), (10**6, "M"))
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def console(stream: TextIO | None = None) -> Console:
    """A console on the stream (standard output when None), as wide as the terminal behind it."""
    from rich.console import Console

    target = stream or sys.stdout
    return Console(file=target, highlight=False, width=None if target.isatty() else _WIDTH_OF_PIPES)


def is_at_terminal(stream: TextIO | None) -> bool:
    """Whether a person is at the other end. stream: None where the system's is closed."""
    return stream is not None and stream.isatty()


def print_error(message: str) -> None:
    from rich.text import Text

    line = Text.assemble(("error: ", "bold red"), (visible(" ".join(message.split())), "red"))
    _print_whole(line)


def print_note(message: str) -> None:
    """Prints a note for the user to standard error, so that piped output stays clean."""
    from rich.text import Text

    _print_whole(Text(visible(message, keep=_LAYOUT), "dim"))


def _print_whole(text: Text) -> None:
    """To standard error: broken between words at a terminal, as one line for other programs."""
    target = console(sys.stderr)
    target.print(text, soft_wrap=not target.is_terminal)


def print_json(value: object) -> None:
    sys.stdout.write(visible(json.dumps(value, indent=2, ensure_ascii=False), keep="\n") + "\n")


def print_compact_json(value: object) -> None:
    """On one line."""
    sys.stdout.write(visible(json.dumps(value, ensure_ascii=False)) + "\n")
    sys.stdout.flush()


def print_line(text: str) -> None:
    sys.stdout.write(visible(text, keep=_LAYOUT) + "\n")


def write_foreign(text: str) -> None:
    """What a model or a library wrote: as it is for programs that read it, without its control codes on a terminal."""
    if sys.stdout.isatty():
        text = visible(text.replace("\r\n", "\n").replace("\r", "\n"), keep=_LAYOUT)
    sys.stdout.write(text)
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, least: Sequence[str] = (), wide: bool = False) -> None:
    """Columns whose heading ends in `>` are aligned right (the mark is not shown). The first column is never cut, and broken
    only where it alone is wider than the terminal.

    least: headings of columns that a terminal which is too narrow leaves out, the first of them first; a pipe gets all.
    wide: prints all columns on a terminal of any width.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    target = console()
    cells = [[visible(cell, keep=_LAYOUT) for cell in row] for row in rows]
    headings = [column.rstrip(">") for column in columns]
    widths = {name: max([len(name), *map(_width, found)]) for name, *found in zip(headings, *cells, strict=True)}
    if wide:
        target = Console(file=sys.stdout, highlight=False, width=max(target.width, sum(widths.values()) + _GAP * len(widths)))
    shown = fitting(widths, least, target.width)
    keeps_names = widths[headings[0]] <= target.width
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        if headings[index] in shown:
            justify: Literal["left", "right"] = "right" if column.endswith(">") else "left"
            table.add_column(headings[index], justify=justify, overflow="fold", no_wrap=index == 0 and keeps_names)
    for row in cells:
        table.add_row(*(Text(cell) for name, cell in zip(headings, row, strict=True) if name in shown))
    target.print(table)
    if len(shown) < len(widths):
        print_note(f"not shown: {', '.join(each.lower() for each in widths if each not in shown)}; --wide shows all")


def fitting(widths: Mapping[str, int], least: Sequence[str], room: int) -> list[str]:
    """The headings that fit into so many characters, with a gap between two. widths: by heading. Pure."""
    shown = list(widths)
    for heading in least:
        if sum(widths[each] + _GAP for each in shown) - _GAP <= room:
            break
        shown = [each for each in shown if each != heading]
    return shown


def _width(cell: str) -> int:
    """Of its longest line."""
    from rich.cells import cell_len

    return max(map(cell_len, cell.splitlines() or [""]))


def size(num_bytes: float) -> str:
    """`1536` -> `1.5 kB`."""
    for unit, name in _UNITS:
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{num_bytes:.0f} B"


def amount(done: int, total: int | None, unit: str) -> str:
    """`3 of 18 steps`; of bytes `0 of 92.9 MB`, in powers of ten, as downloads are measured elsewhere."""
    if unit != "bytes":
        return f"{done} of {total} {unit}" if total is not None else f"{done} {unit}"
    scale, name = next(((scale, name) for scale, name in _DECIMAL_UNITS if max(done, total or 0) >= scale), (1, "B"))
    digits = 1 if scale > 1 and done else 0
    shown = f"{done / scale:.{digits}f}"
    return f"{shown} of {total / scale:.{1 if scale > 1 else 0}f} {name}" if total is not None else f"{shown} {name}"


def count(number: int) -> str:
    """`1_700_000_000` -> `1.7 B`."""
    for unit, name in _COUNTS:
        if number >= 0.9995 * unit:  # what rounds to the unit is shown in it
            return f"{number / unit:.3g} {name}"
    return str(number)


def tokens(number: int) -> str:
    """`131072` -> `128k`."""
    return f"{number // 1024}k" if number >= 1024 and number % 1024 == 0 else str(number)


def span(seconds: float) -> str:
    """`150` -> `2 min`; the largest whole unit."""
    for unit, name in _SPANS:
        if seconds >= unit:
            return f"{seconds // unit:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"
