"""A worker that is a process of this machine, behind `WorkerHandle`. Its watchdog decides whether it hangs; here it is killed.

All methods belong to one asyncio event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from runtime.pool.failures import dead, describe_exit, unpreparable
from runtime.pool.generation import Answer, Generation, Inquiry
from runtime.pool.open_requests import OpenRequests
from runtime.pool.watchdog import LOOK_EVERY_S, Patience, Watchdog
from runtime.pool.worker_pipe import WorkerPipe
from runtime.protocol.errors import InvalidRequest, NotReady, RuntimeFailure
from runtime.protocol.framing import BrokenFrame
from runtime.protocol.messages import (
    Abort,
    Detokenized,
    Drain,
    FromWorker,
    Heartbeat,
    Load,
    LoadFailed,
    ModelInfo,
    Ready,
    SetThreads,
    Stats,
    StepReport,
    Submit,
    Tokenized,
)

log = logging.getLogger("slmops.worker")


@dataclass(frozen=True, slots=True)
class LocalWorkers:
    """Starts workers as processes of this machine. Implements `handle.WorkerFactory`.

    patience: after which a worker counts as hung. What a worker prints goes to this process's standard error.
    """

    patience: Patience = field(default_factory=Patience)

    async def __call__(self, label: str, load: Load) -> LocalWorker:
        return await LocalWorker.start(label, load, self.patience)


class LocalWorker:
    """Implements `handle.WorkerHandle`, which has the contract of the methods."""

    def __init__(self, pipe: WorkerPipe, label: str, info: ModelInfo, patience: Patience) -> None:
        """pipe: of a process that has sent Ready. Begins to read it, so it must be called on a running loop."""
        self.info = info
        self.stats: Stats | None = None
        self._pipe = pipe
        self._label = label
        self._watchdog = Watchdog(patience, silent_steps=info.silent_steps)
        self._hung: str | None = None  # why the watchdog found that it hangs
        self._requests = OpenRequests(self._send_abort)
        self._is_draining = False
        self._exited = asyncio.Event()
        self._on_exit: Callable[[], None] = _ignore
        self._on_finished: Callable[[], None] = _ignore
        self._reading = asyncio.create_task(self._read(), name=f"worker {label}")
        self._watching = asyncio.create_task(self._watch(), name=f"watch {label}")

    @classmethod
    async def start(cls, label: str, load: Load, patience: Patience, *, quiet: bool = False) -> LocalWorker:
        """As `WorkerFactory`. quiet: discards what it prints."""
        try:
            pipe = await WorkerPipe.open(quiet=quiet)
        except OSError as error:
            raise NotReady(f"No worker can be started for {label}: {error}.", code="load_failed") from error
        pipe.send(load)
        return await cls.attach(pipe, label, patience)

    @classmethod
    async def attach(cls, pipe: WorkerPipe, label: str, patience: Patience) -> LocalWorker:
        """Waits for the load that a started process was sent. Raises NotReady with its reason; the process is gone then."""
        first: FromWorker | None = None
        try:
            first = await pipe.receive()
        except (EOFError, BrokenFrame):
            pass  # it ended, or wrote something that is no frame: explained below, once it is gone
        except asyncio.CancelledError:
            await pipe.end()
            raise
        if isinstance(first, Ready):
            return cls(pipe, label, first.info, patience)
        await pipe.end()  # not waited for: a library may hang at its end, and one that writes no frames would live on
        raise NotReady(_why_not_loaded(first, label, pipe.exit_code), code="load_failed")

    @property
    def num_open(self) -> int:
        return len(self._requests)

    @property
    def has_exited(self) -> bool:
        return self._exited.is_set()

    def watch(self, *, on_exit: Callable[[], None], on_finished: Callable[[], None]) -> None:
        self._on_exit, self._on_finished = on_exit, on_finished
        if self.has_exited:
            on_exit()

    def submit(self, message: Submit) -> Generation:
        self._send(message)
        return self._requests.open(message.request)

    async def inquire(self, message: Inquiry) -> Answer:
        self._send(message)
        try:
            return await self._requests.answer(message.request)
        except asyncio.CancelledError:
            self._send_abort(message.request)
            raise

    def set_threads(self, num_threads: int) -> None:
        self._pipe.send(SetThreads(num_threads=num_threads))

    def fail_open(self, failure: RuntimeFailure) -> None:
        for request in self._requests.fail_all(failure):
            self._send_abort(request)

    def drain(self) -> None:
        if not self._is_draining:  # a second Drain would be taken for the other intake thread's
            self._is_draining = True
            self._pipe.send(Drain())

    def kill(self) -> None:
        self._pipe.kill()

    async def wait_exit(self) -> None:
        await self._exited.wait()

    async def reap(self) -> str:
        await self._pipe.wait()
        await self._reading
        await self._pipe.close()
        return describe_exit(self._pipe.exit_code) if self._hung is None else f"it was ended because {self._hung}."

    def _send(self, message: Submit | Inquiry) -> None:
        if self.has_exited:
            raise dead(self._label, self._hung)
        try:
            self._pipe.send(message)
        except (OverflowError, RecursionError, UnicodeEncodeError, BrokenFrame) as error:
            raise InvalidRequest(
                f"The request cannot be passed to the model: {error}. Use whole characters, smaller numbers or less text."
            ) from None

    def _send_abort(self, request: int) -> None:
        if not self.has_exited:
            self._pipe.send(Abort(request=request))

    # ---- the two tasks of a running worker ----

    async def _read(self) -> None:
        """Reads until the process ends, however it ends."""
        try:
            while True:
                self._receive(await self._pipe.receive())
        except EOFError:
            pass  # what follows from its end is below
        except BrokenFrame as error:
            log.error("worker %s sent no frame: %s", self._label, type(error).__name__)
            self.kill()
        finally:
            self._exit()

    async def _watch(self) -> None:
        """Until it exits. What is killed here, `_read` finds ended."""
        while self._hung is None:
            await asyncio.sleep(LOOK_EVERY_S)
            self._hung = self._watchdog.look()
        log.error("worker %s (pid %d) hangs: %s", self._label, self._pipe.pid, self._hung)
        self.kill()

    def _receive(self, message: FromWorker) -> None:
        self._watchdog.message_received(message if isinstance(message, Heartbeat) else None)
        match message:
            case StepReport():
                for _ in range(self._requests.dispatch(message)):
                    self._on_finished()
            case Tokenized() | Detokenized():
                self._requests.settle(message)
            case Stats():
                self.stats = message

    def _exit(self) -> None:
        """The order is the contract's: its owner first, then who was at fault, then everyone else."""
        self._exited.set()
        self._watching.cancel()
        self._on_exit()
        culprit = self._watchdog.unprepared
        if self._hung is not None and culprit is not None:
            self._requests.fail(culprit, unpreparable(self._hung))
        self._requests.fail_all(dead(self._label, self._hung))


def _why_not_loaded(first: FromWorker | None, label: str, exit_code: int | None) -> str:
    """first: the message that a worker sent in place of Ready; None: it sent none."""
    match first:
        case None:
            return f"The worker of {label} ended while loading: {describe_exit(exit_code)}"
        case LoadFailed(message=reason):
            return f"{label} could not be loaded: {reason}"
        case _:
            return f"The worker of {label} sent an unexpected first message ({type(first).__name__})."


def _ignore() -> None:
    """The callbacks of a worker that nobody watches."""
