"""Questions to a worker that have one answer each, as the gateway waits for them. Knows no process: whoever asks, settles."""

from __future__ import annotations

import asyncio

from runtime.errors import RuntimeFailure
from runtime.messages import Detokenize, Detokenized, Tokenize, Tokenized

Inquiry = Tokenize | Detokenize
Answer = Tokenized | Detokenized


class Inquiries:
    """Those of one worker that are not answered yet, by their numbers. What is told of others is ignored: nobody waits for it."""

    def __init__(self) -> None:
        self._open: dict[int, asyncio.Future[Answer]] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def answer(self, number: int) -> Answer:
        """Waits for it. Raises the RuntimeFailure that it was settled with."""
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._open[number] = waiting
        try:
            return await waiting
        finally:
            self._open.pop(number, None)

    def settle(self, answer: Answer) -> None:
        waiting = self._open.pop(answer.request, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def fail(self, number: int, failure: RuntimeFailure) -> None:
        waiting = self._open.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(failure)

    def fail_all(self, failure: RuntimeFailure) -> None:
        for number in list(self._open):
            self.fail(number, failure)
