"""Breaks a text that comes in pieces into lines, between words, as wide as a terminal. Knows no terminal.

A word is held back until it ends, so that no line has to be changed once it is written. Lines of fenced code stay whole.
"""

from __future__ import annotations

from rich.cells import cell_len

_TAB = 8
_FENCE = "```"


class WordWrap:
    """What `feed` and `finish` return, one after the other, is the text with its line breaks."""

    def __init__(self) -> None:
        self._column = 0
        self._spaces = ""
        self._word = ""
        self._line = ""  # the beginning of the line in the source, as far as a fence may go
        self._is_code = False

    def feed(self, text: str, width: int) -> str:
        """width: cells of a line."""
        return "".join(self._take(character, width) for character in text)

    def finish(self, width: int) -> str:
        """What was held back. The next text begins a line."""
        rest = self._end_word(width)
        self.__init__()  # type: ignore[misc]
        return rest

    def _take(self, character: str, width: int) -> str:
        if character == "\n":
            return self._end_line(width)
        if len(self._line) < len(_FENCE) and (self._line or not character.isspace()):
            self._line += character
        if self._is_code:
            return character
        if character in " \t":
            ended = self._end_word(width)
            self._spaces += character
            return ended
        return self._take_letter(character, width)

    def _take_letter(self, character: str, width: int) -> str:
        """Before and after a wide character (Chinese, Japanese, an emoji) a line may end; a word longer than a line is cut."""
        is_wide = cell_len(character) > 1
        ended = self._end_word(width) if is_wide else ""
        self._word += character
        if is_wide or cell_len(self._word) >= width:
            ended += self._end_word(width)
        return ended

    def _end_word(self, width: int) -> str:
        if not self._word:
            return ""
        begin = self._after_spaces()
        if self._column and begin + cell_len(self._word) > width:
            written, self._column = f"\n{self._word}", cell_len(self._word)
        else:
            written, self._column = f"{self._spaces}{self._word}", begin + cell_len(self._word)
        self._word = self._spaces = ""
        return written

    def _after_spaces(self) -> int:
        column = self._column
        for space in self._spaces:
            column += _TAB - column % _TAB if space == "\t" else 1
        return column

    def _end_line(self, width: int) -> str:
        ended = "" if self._is_code else self._end_word(width)
        if self._line == _FENCE:
            self._is_code = not self._is_code
        self._column, self._spaces, self._line = 0, "", ""
        return f"{ended}\n"
