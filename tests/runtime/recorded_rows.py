"""KV rows that hold tokens in plain lists, so that a test can see what was moved, copied and freed."""

from __future__ import annotations

EMPTY, LEFT_BEHIND = -1, -2


class RecordedRows:
    """The `Rows` of `slots`, with a token per place. A row that was moved away holds pages, but nothing of use."""

    bytes_per_token = 1

    def __init__(self, rows: int, context: int) -> None:
        self.held = [[EMPTY] * context for _ in range(rows)]
        self.freed: list[int] = []

    def write(self, row: int, start: int, tokens: list[int]) -> None:
        self.held[row][start : start + len(tokens)] = tokens

    def move(self, source: int, target: int) -> None:
        self.held[target] = list(self.held[source])
        self.held[source] = [token if token == EMPTY else LEFT_BEHIND for token in self.held[source]]

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        self.held[target][:num_tokens] = self.held[source][:num_tokens]

    def free(self, row: int) -> None:
        self.held[row] = [EMPTY] * len(self.held[row])
        self.freed.append(row)

    def backed_bytes(self) -> int:
        return sum(token != EMPTY for row in self.held for token in row)
