"""What a person types in a chat: lines, several of them between triple quotes; line editing; a history only in a given file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.cli.failures import CommandFailed
from server.cli.terminal import print_line, print_note

_QUOTES = '"""'
_PROMPT, _MORE = ">>> ", "... "
_MOST_LINES = 1000  # of a history


def read_message() -> str | None:
    """The next line, or the lines of a block that begins and ends with triple quotes; None at the end of input.

    A command may stand before the block: `/system \"\"\"`. ctrl-C drops what was typed.
    """
    while True:
        try:
            line = input(_PROMPT)
            return _block(line) if opens_block(line) else line
        except EOFError:
            print_line("")
            return None
        except KeyboardInterrupt:
            print_line("")
            print_note("ctrl-D or /bye ends the chat.")


def opens_block(line: str) -> bool:
    """Whether a block begins here that does not end on the line. Pure."""
    before, quotes, rest = line.partition(_QUOTES)
    begins = bool(quotes) and (not before.strip() or before.lstrip().startswith("/"))
    return begins and _QUOTES not in rest


def without_quotes(text: str) -> str:
    """A message or value without the triple quotes around it. Pure."""
    stripped = text.strip()
    if stripped.startswith(_QUOTES) and stripped.endswith(_QUOTES) and len(stripped) >= 2 * len(_QUOTES):
        return stripped[len(_QUOTES) : -len(_QUOTES)].strip("\n")
    return text


def _block(first: str) -> str:
    lines = [first]
    while _QUOTES not in lines[-1] or len(lines) == 1:
        lines.append(input(_MORE))
    return "\n".join(lines)


@contextmanager
def line_editing(history: Path | None) -> Iterator[None]:
    """Arrow keys in `input`, where the system has readline. history: a file that lines are read from and added to; None: none.

    The file can be read by its owner only. Raises CommandFailed when it cannot be used.
    """
    try:
        import readline
    except ImportError:
        if history is not None:
            raise CommandFailed("this Python has no readline, so that there is no history; leave out --history") from None
        yield
        return
    if history is None:
        readline.clear_history()
        yield
        return
    try:
        history.touch(mode=0o600)
        readline.read_history_file(history)
    except OSError as error:
        raise CommandFailed(
            f"the history {history} cannot be used: {error.strerror}; check the path and its permissions"
        ) from error
    readline.set_history_length(_MOST_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a full disk must not hide how the chat ended
            readline.write_history_file(history)
