"""The gateway's end of a worker: starts the process, writes frames to it, hands what it tells to whoever waits. Decides nothing.

All methods belong to one asyncio event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from collections.abc import Callable
from contextlib import suppress

import msgspec

from runtime.child_environment import child_environment
from runtime.errors import InvalidRequest, NotReady
from runtime.framing import HEADER_BYTES, BrokenFrame, Encoder, body_size
from runtime.generation import Generation, failure_of
from runtime.inquiries import Answer, Inquiries, Inquiry
from runtime.messages import (
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
    ToWorker,
)
from runtime.watchdog import LOOK_EVERY_S, Patience, Watchdog
from runtime.worker_failures import dead, describe_exit, unpreparable

log = logging.getLogger("slmops.worker")

DEFAULT_PATIENCE = Patience()
LINGER_S = 5.0  # between the end of what a worker tells and the end of its process


class WorkerProcess:
    """One worker. `exited` is set once it tells nothing more and every open generation knows; `reap` waits for its process too.

    on_exit(worker) is called in that moment, first of all; on_finished() when a request was answered to its end. A worker that
    hangs, as its watchdog finds, is killed.
    """

    def __init__(self, process: asyncio.subprocess.Process, label: str, patience: Patience) -> None:
        self._process = process
        self._label = label
        self._patience = patience
        self._watchdog = Watchdog(patience)
        self._watching: asyncio.Task[None] | None = None
        self._hung: str | None = None
        self._encoder = Encoder()
        self._numbers = itertools.count(1)
        self._open: dict[int, Generation] = {}
        self._inquiries = Inquiries()
        self._reader: asyncio.Task[None] | None = None
        self.on_exit: Callable[[WorkerProcess], None] = _nobody_asked
        self.on_finished: Callable[[], None] = lambda: None
        self.info: ModelInfo | None = None
        self.stats: Stats | None = None
        self.exited = asyncio.Event()  # nothing more will be told

    @classmethod
    async def start(cls, load: Load, label: str, patience: Patience = DEFAULT_PATIENCE, *, quiet: bool = False) -> WorkerProcess:
        """Starts the process and sends it `Load`; `wait_ready` returns the outcome. quiet: without its standard error."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # not from the folder that the daemon was started in
            "-m",
            "runtime.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL if quiet else None,
            env=child_environment(),
            limit=1 << 20,
        )
        worker = cls(process, label, patience)
        worker._send(load)
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def num_open(self) -> int:
        """Requests that it works on, or that wait for it."""
        return len(self._open) + len(self._inquiries)

    @property
    def death(self) -> str:
        """How it ended, for people; once `reap` has returned."""
        if self._hung is not None:
            return f"it was ended because {self._hung}."
        return describe_exit(self._process.returncode)

    async def wait_ready(self) -> ModelInfo:
        """Raises NotReady with the worker's reason, after which the process is gone."""
        try:
            message = await self._receive()
        except (asyncio.IncompleteReadError, ConnectionError, BrokenFrame, msgspec.DecodeError):
            self.kill()  # one that writes something else than frames would live on
            await self.reap()
            code = self._process.returncode
            why = f"The worker of {self._label} ended while loading: {describe_exit(code)}"
            raise NotReady(why, code="load_failed") from None
        except asyncio.CancelledError:
            self.kill()
            await self.reap()
            raise
        if isinstance(message, LoadFailed):
            self.kill()  # a library that hangs at its end must not keep the load waiting
            await self.reap()
            raise NotReady(f"{self._label} could not be loaded: {message.message}", code="load_failed")
        if not isinstance(message, Ready):
            self.kill()
            await self.reap()
            raise NotReady(f"The worker of {self._label} spoke out of turn.")
        self.info = message.info
        self._watchdog = Watchdog(self._patience, silent_steps=message.info.silent_steps)
        self._reader = asyncio.create_task(self._read(), name=f"worker {self._label}")
        self._watching = asyncio.create_task(self._watch(), name=f"watch {self._label}")
        return message.info

    def submit(self, make: Callable[[int], Submit]) -> Generation:
        """Sends a request under a number of its own. Raises EngineDead, and InvalidRequest for what no frame can hold."""
        number = self._number(make)
        generation = self._open[number] = Generation(number, self._abort)
        return generation

    async def ask(self, make: Callable[[int], Inquiry]) -> Answer:
        """Sends a question likewise, and waits for its answer. Raises likewise, or how the worker refused it."""
        number = self._number(make)
        try:
            return await self._inquiries.answer(number)
        except asyncio.CancelledError:
            if not self.exited.is_set():
                self._send(Abort(request=number))
            raise

    def _number(self, make: Callable[[int], Submit | Inquiry]) -> int:
        """Sends what is made of the next number. Returns the number."""
        if self.exited.is_set():
            raise dead(self._label, self._hung)
        number = next(self._numbers)
        try:
            self._send(make(number))
        except (OverflowError, RecursionError, UnicodeEncodeError, BrokenFrame) as error:
            raise InvalidRequest(
                f"The request cannot be passed to the model: {error}. Use whole characters, smaller numbers or less text."
            ) from None
        return number

    def set_threads(self, num_threads: int) -> None:
        """Only of an engine whose info says that it can."""
        self._send(SetThreads(num_threads=num_threads))

    def drain(self) -> None:
        """The worker finishes what it has, then ends."""
        self._send(Drain())

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    async def reap(self) -> None:
        """Waits until the process is gone and its pipes are closed, so that the loop may close too. What lingers is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(LINGER_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        if self._reader is not None:
            await self._reader
        else:
            await self._process.stdout.read()
        self._process.stdin.close()
        with suppress(ConnectionError):
            await self._process.stdin.wait_closed()

    def fail_open(self, failure: NotReady) -> None:
        """Ends everything open with this failure; rows stop."""
        self._inquiries.fail_all(failure)
        for generation in list(self._open.values()):
            self._abort(generation.number)
            generation.fail(failure)

    def _abort(self, number: int) -> None:
        if self._open.pop(number, None) is not None and not self.exited.is_set():
            self._send(Abort(request=number))

    def _send(self, message: ToWorker) -> None:
        """Nothing, when the pipe is closed already: that the worker is gone, `_read` tells everyone at once."""
        assert self._process.stdin is not None
        frame = self._encoder.frame(message)
        if not self._process.stdin.is_closing():
            self._process.stdin.write(frame)

    async def _receive(self) -> FromWorker:
        assert self._process.stdout is not None
        size = body_size(await self._process.stdout.readexactly(HEADER_BYTES))
        message: FromWorker = _DECODER.decode(await self._process.stdout.readexactly(size))
        return message

    async def _read(self) -> None:
        """Until the process ends, however it ends."""
        try:
            while True:
                message = await self._receive()
                self._watchdog.heard(message if isinstance(message, Heartbeat) else None)
                if isinstance(message, StepReport):
                    self._dispatch(message)
                elif isinstance(message, Tokenized | Detokenized):
                    self._inquiries.settle(message)
                elif isinstance(message, Stats):
                    self.stats = message
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the process has ended; below is what follows from it
        except (BrokenFrame, msgspec.DecodeError) as error:
            log.error("worker %s broke its stream: %s", self._label, type(error).__name__)
            self.kill()
        finally:
            self.exited.set()
            if self._watching is not None:
                self._watching.cancel()
            self.on_exit(self)
            self._fail_culprit()
            failure = dead(self._label, self._hung)
            for generation in list(self._open.values()):
                generation.fail(failure)
            self._open.clear()
            self._inquiries.fail_all(failure)

    def _fail_culprit(self) -> None:
        """The request that a worker was ended for, if it was for one."""
        culprit = self._watchdog.unprepared
        if self._hung is None or culprit is None:
            return
        failure = unpreparable(self._hung)
        if (generation := self._open.pop(culprit, None)) is not None:
            generation.fail(failure)
        else:
            self._inquiries.fail(culprit, failure)

    async def _watch(self) -> None:
        """Until it exits. What was killed, `_read` finds gone."""
        while self._hung is None:
            await asyncio.sleep(LOOK_EVERY_S)
            self._hung = self._watchdog.look()
        log.error("worker %s (pid %d) hangs: %s", self._label, self.pid, self._hung)
        self.kill()

    def _dispatch(self, report: StepReport) -> None:
        for started in report.started:
            if (generation := self._open.get(started.request)) is not None:
                generation.push(started)
        for chunk in report.chunks:
            if (generation := self._open.get(chunk.request)) is not None:
                generation.push(chunk)
        for finished in report.finished:
            if (generation := self._open.pop(finished.request, None)) is not None:
                generation.push(finished)
                self.on_finished()
        for failed in report.failed:
            if (generation := self._open.pop(failed.request, None)) is not None:
                generation.fail(failure_of(failed))
            else:
                self._inquiries.fail(failed.request, failure_of(failed))


def _nobody_asked(worker: WorkerProcess) -> None:
    """The default of `on_exit`."""


_DECODER = msgspec.msgpack.Decoder(FromWorker)
