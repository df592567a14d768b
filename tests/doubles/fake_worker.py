"""A worker without a process: the fake engine, stepped on the event loop, behind the protocol that the pool knows.

It keeps the contract of `runtime.pool.handle`, as `tests/runtime/test_worker_handle.py` proves of it and of a local process alike.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from runtime.batching.failures import broken, failed
from runtime.engines.protocol import AdjustableEngine, Engine, build_engine
from runtime.pool.failures import dead, describe_exit
from runtime.pool.generation import Answer, Generation, Inquiry
from runtime.pool.open_requests import OpenRequests
from runtime.protocol.errors import InvalidRequest, NotReady, RuntimeFailure
from runtime.protocol.framing import Encoder
from runtime.protocol.messages import Load, Stats, StepReport, Submit
from runtime.worker.intake import answered

KILLED, CRASHED = -9, 139
_NO_PROCESS = 1 << 30  # ids above every process's


@dataclass(frozen=True, slots=True)
class Start:
    """How one start of a worker goes. fails: why it cannot load. may_load: set once it may. lingers: only a kill ends it."""

    fails: str | None = None
    may_load: asyncio.Event | None = None
    lingers: bool = False


class FakeWorkers:
    """Implements `WorkerFactory`. script: how its first starts go; later ones succeed at once."""

    def __init__(self, script: Sequence[Start] = ()) -> None:
        self._script = deque(script)
        self._pids = itertools.count(_NO_PROCESS)
        self.num_starts = 0
        self.workers: list[FakeWorker] = []  # that have loaded, in that order

    async def __call__(self, label: str, load: Load) -> FakeWorker:
        self.num_starts += 1
        start = self._script.popleft() if self._script else Start()
        if start.may_load is not None:
            await start.may_load.wait()
        await asyncio.sleep(0)
        if start.fails is not None:
            raise NotReady(start.fails, code="load_failed")
        try:
            engine = build_engine(load)
        except ValueError as error:
            raise NotReady(f"{label} could not be loaded: {error}", code="load_failed") from None
        self.workers.append(FakeWorker(engine, label, next(self._pids), lingers=start.lingers))
        return self.workers[-1]


class FakeWorker:
    """Implements `WorkerHandle`. A prompt with `[[crash]]` ends it, as the process of a real one."""

    def __init__(self, engine: Engine, label: str, pid: int, *, lingers: bool = False) -> None:
        self.info = msgspec.structs.replace(engine.info, pid=pid)
        self.stats: Stats | None = None
        self.calls: list[str] = []  # of what its owner may tell it besides requests
        self.submitted: list[Submit] = []
        self.inquired: list[Inquiry] = []
        self._engine = engine
        self._label = label
        self._lingers = lingers
        self._requests = OpenRequests(self._forget)
        self._inbox: deque[Submit] = deque()
        self._draining = False
        self._wake = asyncio.Event()
        self._exited = asyncio.Event()
        self._exit_code: int | None = None
        self._on_exit: Callable[[], None] = lambda: None
        self._on_finished: Callable[[], None] = lambda: None
        self._running = asyncio.create_task(self._run(), name=f"fake worker {label}")

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
        self._check(message)
        self.submitted.append(message)
        self._inbox.append(message)
        self._wake.set()
        return self._requests.open(message.request)

    async def inquire(self, message: Inquiry) -> Answer:
        self._check(message)
        self.inquired.append(message)
        asyncio.get_running_loop().call_soon(self._answer, message)
        return await self._requests.answer(message.request)

    def set_threads(self, num_threads: int) -> None:
        self.calls.append(f"set_threads {num_threads}")
        if isinstance(self._engine, AdjustableEngine) and not self.has_exited:
            self._engine.set_threads(num_threads)
            self.stats = self._engine.stats()

    def fail_open(self, failure: RuntimeFailure) -> None:
        self.calls.append(f"fail_open {failure}")
        for request in self._requests.fail_all(failure):
            self._forget(request)

    def drain(self) -> None:
        self.calls.append("drain")
        self._draining = not self._lingers
        self._wake.set()

    def kill(self) -> None:
        self.calls.append("kill")
        self.die(KILLED)

    def die(self, exit_code: int = CRASHED) -> None:
        """Ends as a process would that crashes now; does nothing when it has ended."""
        if self._exit_code is None:
            self._exit_code = exit_code
            self._running.cancel()
            asyncio.get_running_loop().call_soon(self._exit)

    async def wait_exit(self) -> None:
        await self._exited.wait()

    async def reap(self) -> str:
        await self._exited.wait()
        return describe_exit(self._exit_code)

    def _check(self, message: Submit | Inquiry) -> None:
        if self.has_exited:
            raise dead(self._label, None)
        try:
            Encoder().frame(message)
        except (OverflowError, UnicodeEncodeError) as error:
            raise InvalidRequest(f"The request cannot be passed to the model: {error}.") from None

    def _forget(self, request: int) -> None:
        """A request was aborted: nothing more is computed for it."""
        self._inbox = deque(each for each in self._inbox if each.request != request)
        self._engine.remove(request)
        self._wake.set()

    def _answer(self, message: Inquiry) -> None:
        try:
            self._requests.settle(answered(self._engine, message))
        except RuntimeFailure as failure:
            self._requests.fail(message.request, failure)

    async def _run(self) -> None:
        """Until it is drained; one step of the engine in each turn of the loop."""
        while True:
            await asyncio.sleep(0)
            while self._inbox:
                self._take_in(self._inbox.popleft())
            if self._exit_code is not None:
                return
            if self._engine.num_unfinished:
                self._step()
            elif self._draining and not self.num_open:
                self.die(0)
            else:
                self._wake.clear()
                await self._wake.wait()

    def _take_in(self, submit: Submit) -> None:
        if "[[crash]]" in repr(submit.prompt):
            self.die()
        try:
            self._engine.add(self._engine.prepare(submit))
        except RuntimeFailure as failure:
            self._dispatch(StepReport(failed=[failed(submit.request, failure)]))

    def _step(self) -> None:
        try:
            report = self._engine.step()
        except Exception as error:
            report = StepReport(failed=[broken(request, error) for request in self._engine.fail_all()])
        self.stats = self._engine.stats()
        self._dispatch(report)

    def _dispatch(self, report: StepReport) -> None:
        for _ in range(self._requests.dispatch(report)):
            self._on_finished()

    def _exit(self) -> None:
        self._exited.set()
        self._on_exit()
        self._requests.fail_all(dead(self._label, None))
