"""What a worker was sent and has not ended: requests with their generations, and inquiries. Pure bookkeeping; knows no process."""

from __future__ import annotations

from collections.abc import Callable

from runtime.pool.generation import Answer, Generation, Inquiries, failure_of
from runtime.protocol.errors import RuntimeFailure
from runtime.protocol.events import Chunk, Started
from runtime.protocol.messages import StepReport


class OpenRequests:
    """Routes events to their readers by request id. Events of ids that are not open are dropped: their readers have left.

    on_abort(request): called when a reader aborts an open request, so that the worker may be sent an Abort.
    """

    def __init__(self, on_abort: Callable[[int], None]) -> None:
        self._on_abort = on_abort
        self._generations: dict[int, Generation] = {}
        self._inquiries = Inquiries()

    def __len__(self) -> int:
        return len(self._generations) + len(self._inquiries)

    def open(self, request: int) -> Generation:
        """Registers a request and returns what its reader reads."""
        generation = self._generations[request] = Generation(request, self._abort)
        return generation

    async def answer(self, request: int) -> Answer:
        """Registers an inquiry and waits for its answer. Raises the RuntimeFailure with which it was failed."""
        return await self._inquiries.answer(request)

    def dispatch(self, report: StepReport) -> int:
        """Passes a step's events on. Returns how many requests it finished."""
        num_finished = 0
        events: list[Started | Chunk] = [*report.started, *report.chunks]
        for event in events:
            if (generation := self._generations.get(event.request)) is not None:
                generation.push(event)
        for finished in report.finished:
            if (generation := self._generations.pop(finished.request, None)) is not None:
                generation.push(finished)
                num_finished += 1
        for failed in report.failed:
            self.fail(failed.request, failure_of(failed))
        return num_finished

    def settle(self, answer: Answer) -> None:
        """Passes an inquiry's answer on."""
        self._inquiries.settle(answer)

    def fail(self, request: int, failure: RuntimeFailure) -> None:
        """Ends a request or an inquiry; does nothing where it has ended already."""
        if (generation := self._generations.pop(request, None)) is not None:
            generation.fail(failure)
        else:
            self._inquiries.fail(request, failure)

    def fail_all(self, failure: RuntimeFailure) -> list[int]:
        """Ends everything. Returns the requests among what was open, without the inquiries."""
        requests = list(self._generations)
        for request in requests:
            self.fail(request, failure)
        self._inquiries.fail_all(failure)
        return requests

    def _abort(self, request: int) -> None:
        if self._generations.pop(request, None) is not None:
            self._on_abort(request)
