"""The prompt of `slmops run`: what was typed after it, and what is piped in."""

from __future__ import annotations

import select
import sys

from server.cli.failures import MISUSED, CommandFailed
from server.cli.terminal import is_at_terminal, print_note

_PATIENCE_S = 2.0  # before a person is told what is waited for
STANDARD_INPUT = "-"


def read_prompt(typed: str | None) -> str | None:
    """The prompt to send: what was typed, a blank line, what was piped in; None for a chat. Raises CommandFailed.

    typed: `-` stands for standard input, a terminal's too.
    """
    if is_at_terminal(sys.stdin) and typed != STANDARD_INPUT:
        return None if typed is None else _checked(typed)
    typed = None if typed == STANDARD_INPUT else typed
    return _checked(combine(typed, decode(_piped(is_extra=typed is not None))))


def combine(typed: str | None, piped: str) -> str:
    """Piped text is appended after a blank line; alone it is the prompt. Pure."""
    if typed is None or not typed.strip():
        return piped
    return f"{typed}\n\n{piped}" if piped.strip() else typed


def decode(content: bytes) -> str:
    """The text of piped bytes, without a byte order mark. Raises CommandFailed for what is no UTF-8 text. Pure."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandFailed(
            f"the piped input is not UTF-8 text (byte 0x{content[error.start]:02x} at offset {error.start}); "
            "convert it, as by `iconv -f LATIN1 -t UTF-8`",
            MISUSED,
        ) from None
    if "\0" in text:
        raise CommandFailed("the piped input is binary (it has zero bytes); pipe text", MISUSED)
    return text


def _piped(*, is_extra: bool) -> bytes:
    """All of standard input, nothing when it is closed. is_extra: the prompt does without it, so a writer without end is noted."""
    if sys.stdin is None:
        return b""
    if is_extra and not _is_readable_soon():
        print_note("waiting for the end of the piped input; without any, add </dev/null")
    return sys.stdin.buffer.read()


def _is_readable_soon() -> bool:
    try:
        return bool(select.select([sys.stdin], [], [], _PATIENCE_S)[0])
    except (OSError, ValueError):  # no file of the system, or one that cannot be waited for
        return True


def _checked(prompt: str) -> str:
    if not prompt.strip():
        raise CommandFailed("the prompt is empty; give a PROMPT or pipe one in", MISUSED)
    return prompt
