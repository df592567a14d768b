"""A worker: the process that owns one engine. Reads frames from its standard input, writes frames to its standard output.

    python -m runtime.worker.main

Five threads. One reads frames; two prepare requests (template, tokens) and answer inquiries to the tokenizer, so that a long
prompt delays neither an abort nor a step, and no step delays such an answer; one sends heartbeats; the main thread steps the
engine. The process ends when one of them fails, since the others would wait for it without end, and when its input ends, so that no
worker outlives its gateway. What native libraries print goes to standard error.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import time
import traceback
from typing import BinaryIO

import msgspec

from model_registry.errors import RegistryError
from model_registry.telemetry import turn_off_telemetry
from runtime.batching.failures import broken, failed
from runtime.engines.protocol import AdjustableEngine, Engine, EngineBroken, Prepared, build_engine
from runtime.protocol.errors import RuntimeFailure
from runtime.protocol.framing import FrameWriter, read_frame
from runtime.protocol.messages import Abort, Detokenize, Drain, Load, LoadFailed, Ready, SetThreads, StepReport, Submit, Tokenize
from runtime.worker.intake import IntakeThreads, Outcome, Refused, Skipped
from runtime.worker.threads import Pulse, log_error, start_thread

STATS_EVERY_S = 0.2


GatewayMessage = Submit | Tokenize | Detokenize | Abort | SetThreads | Drain  # after the Load
Work = Outcome | Abort | SetThreads


class Worker:
    """Steps an engine and writes what it reports to `output`."""

    def __init__(self, engine: Engine, output: FrameWriter) -> None:
        self._engine = engine
        self._output = output
        self._inbox: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self.intake = IntakeThreads(engine, output, self._inbox.put, lambda request: request in self._forgotten)
        self.pulse = Pulse(output.write, self.intake.oldest)
        self._unprepared: set[int] = set()  # requests that the engine does not know yet
        self._forgotten: set[int] = set()  # of those, the ones that were aborted already
        self._draining = False
        self._stats_at = 0.0
        self._stats_sent: object = None

    def receive(self, message: GatewayMessage) -> None:
        """Called on the reading thread. An abort overtakes requests that are being prepared; a drain does not."""
        match message:
            case Abort(request=request) if self.intake.withdraw(request):
                return
            case Abort() | SetThreads():
                self._inbox.put(message)
                return
            case Submit(request=request):
                self._unprepared.add(request)
        self.intake.put(message)

    def run(self) -> None:
        """Runs until drained."""
        while not (self._draining and not self._engine.num_unfinished and self._inbox.empty()):
            report = StepReport()
            self._take_in(report)
            if self._engine.num_unfinished:
                self._step(report)
            self._send(report)
            self._send_stats()

    def _take_in(self, report: StepReport) -> None:
        """Everything that has arrived; blocks when there is nothing else to do."""
        if not self._engine.num_unfinished and self._inbox.empty():
            self._send_stats(at_once=True)
            self._handle(self._inbox.get(), report)
        while not self._inbox.empty():
            self._handle(self._inbox.get(), report)

    def _handle(self, work: Work, report: StepReport) -> None:
        match work:
            case Abort(request=request) if request in self._unprepared:
                self._forgotten.add(request)
            case Abort(request=request):
                with self.pulse:  # a vendor may hang in it
                    self._engine.remove(request)
            case SetThreads(num_threads=num_threads):
                assert isinstance(self._engine, AdjustableEngine)  # only such an engine gets this message
                with self.pulse:
                    self._engine.set_threads(num_threads)
            case Drain():
                self._draining = True
            case Skipped(request=request):
                self._is_wanted(request)
            case Refused(failed=refusal):
                if self._is_wanted(refusal.request):
                    report.failed.append(refusal)
            case _:
                if self._is_wanted(work.request):
                    self._add(work, report)

    def _is_wanted(self, request: int) -> bool:
        """Whether a prepared request was not aborted meanwhile."""
        self._unprepared.discard(request)
        wanted = request not in self._forgotten
        self._forgotten.discard(request)
        return wanted

    def _add(self, work: Prepared, report: StepReport) -> None:
        try:
            self._engine.add(work)
        except RuntimeFailure as failure:
            report.failed.append(failed(work.request, failure))

    def _step(self, report: StepReport) -> None:
        try:
            with self.pulse:
                stepped = self._engine.step()
        except EngineBroken:
            raise
        except Exception as error:
            log_error(error, "a step")
            report.failed.extend(broken(request, error) for request in self._engine.fail_all())
            return
        report.started.extend(stepped.started)
        report.chunks.extend(stepped.chunks)
        report.finished.extend(stepped.finished)
        report.failed.extend(stepped.failed)

    def _send(self, report: StepReport) -> None:
        if report.started or report.chunks or report.finished or report.failed:
            self._output.write(report)

    def _send_stats(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if now - self._stats_at < STATS_EVERY_S and not at_once:
            return
        self._stats_at = now
        stats = self._engine.stats()
        if stats != self._stats_sent:
            self._stats_sent = stats
            self._output.write(msgspec.structs.replace(stats, cpu_s=time.process_time()))


def _read_messages(stream: BinaryIO, worker: Worker) -> None:
    """The reading thread. The end of the input is the end of the gateway: whatever the engine is doing, stop.

    So is an input that holds no messages: without this thread the process would live on without input.
    """
    decoder = msgspec.msgpack.Decoder(GatewayMessage)
    try:
        while (body := read_frame(stream)) is not None:
            worker.receive(decoder.decode(body))
    except Exception as error:
        log_error(error, "the reading thread")
        os._exit(1)
    os._exit(0)


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    """Takes standard input and output for frames; from here on, what anything prints goes to standard error."""
    frames_in, frames_out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return frames_in, frames_out


def main() -> None:
    turn_off_telemetry()
    frames_in, frames_out = _own_streams()
    for number in (signal.SIGINT, signal.SIGTERM):  # they may reach the whole group; the gateway decides what ends
        signal.signal(number, signal.SIG_IGN)
    output = FrameWriter(frames_out)
    body = read_frame(frames_in)
    if body is None:
        return
    try:
        load = msgspec.msgpack.decode(body, type=Load)
        engine = build_engine(load)
    except BaseException as error:  # libraries panic, too
        traceback.print_exc()
        explained = isinstance(error, ValueError | MemoryError | RegistryError)  # written for people; others need their name
        message = str(error) if explained else f"{type(error).__name__}: {error}"
        output.write(LoadFailed(message=message))
        return
    output.write(Ready(info=engine.info))
    worker = Worker(engine, output)
    start_thread("pulse", worker.pulse.run)
    start_thread("programs", worker.intake.of_programs.run)
    start_thread("texts", worker.intake.of_texts.run)
    start_thread("frames", lambda: _read_messages(frames_in, worker))
    try:
        worker.run()
    except BrokenPipeError:
        os._exit(0)  # the gateway is gone
    except BaseException as error:  # also a library's panic, which is no Exception
        log_error(error, "the worker")
        os._exit(1)
    engine.close()
    os._exit(0)  # the other threads still wait for input


if __name__ == "__main__":
    main()
