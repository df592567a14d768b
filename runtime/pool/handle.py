"""What the pool knows of a worker: messages go in, events come out. A process of this machine implements it; a remote actor could.

The contract, for whoever implements it and whoever calls it:

Loop.       One asyncio event loop, the one on which the worker was started, makes every call and gets every event and callback.
            Nothing here blocks: what needs the worker's reply is a coroutine or comes as an event.
Life.       A `WorkerFactory` returns a worker whose model is loaded. It exits once, by itself, after `drain` or by `kill`, and
            is never revived: its owner starts another. `reap` must be awaited once for each worker that a factory returned.
Events.     A request gets at most one Started, then Chunks, then exactly one end: Finished, or its RuntimeFailure raised to the
            reader. A reader that calls `Generation.abort` gets no further event. Events of one request keep their order; nothing
            is promised about the order between requests.
Exit.       In this order: `has_exited` turns true; `on_exit` is called; everything open ends with EngineDead, or, for the one
            request that the worker was ended for, with InvalidRequest; `wait_exit` returns. So its owner knows of a death
            before any caller does, and a caller that retries at once finds the owner prepared.
After it.   `submit` and `inquire` raise EngineDead. `set_threads`, `fail_open`, `drain` and `kill` do nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from runtime.pool.generation import Answer, Generation, Inquiry
from runtime.protocol.errors import RuntimeFailure
from runtime.protocol.messages import Load, ModelInfo, Stats, Submit


class WorkerHandle(Protocol):
    @property
    def info(self) -> ModelInfo:
        """What it has loaded."""
        ...

    @property
    def stats(self) -> Stats | None:
        """The newest statistics that it sent; None before the first."""
        ...

    @property
    def num_open(self) -> int:
        """Requests and inquiries that have not ended yet."""
        ...

    @property
    def has_exited(self) -> bool:
        """Whether no further event will come."""
        ...

    def watch(self, *, on_exit: Callable[[], None], on_finished: Callable[[], None]) -> None:
        """Registers its owner's callbacks, in place of earlier ones.

        on_exit: called once, when it exits; at once, where it has exited already. on_finished: called after each request that
        ended with Finished. Neither may raise.
        """
        ...

    def submit(self, message: Submit) -> Generation:
        """Sends a request, whose id no other request or inquiry of this worker may have.

        Raises EngineDead after its exit, and InvalidRequest for what no message can carry (half a surrogate pair); then nothing
        was sent. What the worker itself refuses is raised by the generation.
        """
        ...

    async def inquire(self, message: Inquiry) -> Answer:
        """Sends a question under an id of its own, and waits for the answer. Cancelling it withdraws the question.

        Raises as `submit`, or the RuntimeFailure with which the worker refused.
        """
        ...

    def set_threads(self, num_threads: int) -> None:
        """Makes it compute with so many threads from its next step on. Only where `info.can_set_threads`."""
        ...

    def fail_open(self, failure: RuntimeFailure) -> None:
        """Ends everything open with this failure and stops its rows. The worker goes on."""
        ...

    def drain(self) -> None:
        """Makes it finish what it was sent, then exit. May be called again."""
        ...

    def kill(self) -> None:
        """Ends it without waiting for anything. Its exit is reported as any other."""
        ...

    async def wait_exit(self) -> None:
        """Returns once it has exited, and everyone who waited on it has been notified."""
        ...

    async def reap(self) -> str:
        """Waits until none of its resources is held any more, and kills it where it lingers. May be awaited again.

        Only of a worker that has exited or is about to. Returns how it ended, as a clause for people.
        """
        ...


class WorkerFactory(Protocol):
    """Starts workers. The composition root decides where they run: it hands the pool one factory."""

    async def __call__(self, label: str, load: Load) -> WorkerHandle:
        """Starts a worker and waits until its model is loaded. label: the model's, for messages and logs.

        Raises NotReady (`load_failed`) with the reason why it cannot start or load. Nothing of the worker is left when this
        raises, nor when it is cancelled.
        """
        ...
