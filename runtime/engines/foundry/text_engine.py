"""An engine over a model that takes a text and gives one: each running request is answered on a thread of its own.

Owns the threads, and what becomes of the text that they give. Knows no library: a `TextModel` knows how to answer.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from runtime.batching.delivery import started
from runtime.batching.failures import broken, failed
from runtime.batching.queue import RequestQueue
from runtime.batching.sequence import Sequence, Undelivered
from runtime.engines.foundry.text_intake import Answer, Answered, TextIntake, TextModel, TextRequest
from runtime.engines.protocol import EngineBroken
from runtime.protocol.errors import RuntimeFailure
from runtime.protocol.events import Chunk, Finished, FinishReason, Timings, Usage
from runtime.protocol.messages import EngineOptions, ModelInfo, Stats, StepReport, Submit
from runtime.protocol.request import Prompt
from runtime.text.tokenizer import Tokenizer

HUNG_S = 300.0  # a cancelled answer that computes for so long never ends
WAIT_S = 0.02  # how long a step waits for text; also the delay of new requests and aborts while no text arrives


@dataclass(frozen=True, slots=True)
class _StreamItem:
    """An item from an answering thread: new text, the end, or an exception."""

    request: int
    what: str | Answered | BaseException


@dataclass(slots=True)
class _Running:
    sequence: Sequence
    answer: Answer
    thread: threading.Thread
    num_tokens: int = 0


class TextEngine:
    """Implements `engines.protocol.Engine`. kv_budget_bytes: of the memory that running requests reserve, resolved to a number."""

    def __init__(
        self,
        info: ModelInfo,
        model: TextModel,
        intake: TextIntake,
        options: EngineOptions,
        *,
        kv_budget_bytes: int,
        resident_bytes: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.info = info
        self._model = model
        self._intake = intake
        self._options = options
        self._kv_budget_bytes = kv_budget_bytes
        self._clock = clock
        self._queue = RequestQueue(
            info,
            max_waiting=options.max_waiting,
            kv_budget_bytes=kv_budget_bytes,
            release=self._release,
            resident_bytes=resident_bytes,
            clock=clock,
        )
        self._texts: dict[int, str] = {}  # of requests that wait, as the model will read them
        self._running: dict[int, _Running] = {}
        self._threads: set[threading.Thread] = set()
        self._cancelled: dict[
            threading.Thread, float
        ] = {}  # of these, the ones whose answer is not wanted any more, and since when
        self._items: queue.SimpleQueue[_StreamItem] = queue.SimpleQueue()

    @property
    def num_unfinished(self) -> int:
        return self._queue.num_unfinished

    def prepare(self, submit: Submit) -> TextRequest:
        self._model.check(submit.params)
        return self._intake.prepare(submit)

    @property
    def tokenizer(self) -> Tokenizer:
        return self._intake.tokenizer

    def tokenize(self, prompt: Prompt) -> list[int]:
        return self._intake.tokens(prompt)

    def add(self, prepared: TextRequest) -> None:
        self._queue.add(prepared.sequence)
        self._texts[prepared.request] = prepared.text

    def remove(self, request: int) -> None:
        self._queue.abort(request)

    def fail_all(self) -> list[int]:
        return self._queue.fail_all()

    def step(self) -> StepReport:
        """Admits what may run, then waits for text: at most `WAIT_S`. Raises EngineBroken when a cancelled answer never ends."""
        self._check_cancelled()
        report = self._queue.begin_step()
        while (sequence := self._queue.scheduler.first_waiting()) is not None and self._can_start(sequence):
            self._start(sequence, report)
        with contextlib.suppress(queue.Empty):
            item = self._items.get(timeout=WAIT_S)
            while True:
                self._deliver(item, report)
                item = self._items.get_nowait()
        return self._queue.end_step()

    def stats(self) -> Stats:
        reserved = self._reserved_bytes()
        return self._queue.stats(active_bytes=reserved, kv_bytes=reserved, threads=self.info.threads)

    def close(self) -> None:
        self.fail_all()
        for thread in list(self._threads):
            thread.join()
        self._intake.close()
        self._model.close()

    # ---- a request's way ----

    def _start(self, sequence: Sequence, report: StepReport) -> None:
        self._queue.admit(sequence)
        answer = self._model.answer(self._texts.pop(sequence.request), sequence.params)
        thread = threading.Thread(target=self._serve, args=(sequence.request, answer), name="answer", daemon=True)
        self._running[sequence.request] = _Running(sequence, answer, thread)
        report.started.append(started(sequence))
        self._threads.add(thread)
        thread.start()

    def _serve(self, request: int, answer: Answer) -> None:
        """Runs on the request's own thread."""
        try:
            ended: Answered | BaseException = answer.run(lambda text: self._items.put(_StreamItem(request, text)))
        except BaseException as error:  # a library's panic too: a thread that ended in silence would leave its request open
            ended = error
        self._threads.discard(threading.current_thread())
        self._items.put(_StreamItem(request, ended))

    def _deliver(self, item: _StreamItem, report: StepReport) -> None:
        """Items of a request that has left are the rest of a cancelled answer."""
        running = self._running.get(item.request)
        if running is None:
            return
        match item.what:
            case str() as text:
                try:
                    self._on_text(running, text, report)
                except RuntimeFailure as failure:  # its tokenizer cannot read what the model wrote
                    self._queue.fail(running.sequence, failed(item.request, failure))
            case Answered() as answered:
                self._on_end(running, answered, report)
            case BaseException() as error:
                traceback.print_tb(error.__traceback__)
                self._queue.fail(running.sequence, broken(item.request, error))

    def _on_text(self, running: _Running, text: str, report: StepReport) -> None:
        """Token ids are computed from the text: the model returns none."""
        sequence = running.sequence
        if sequence.first_token_at is None:
            sequence.first_token_at = self._clock()
        ids = self._intake.tokenizer.encode(text, add_special_tokens=False)
        running.num_tokens += len(ids)
        sequence.undelivered.token_ids += ids
        if sequence.thought is not None:
            for token in ids:
                sequence.thought.accept(token)
        released = sequence.stop.feed(text)
        if released.matched is not None:
            usage = _usage(sequence, sequence.prompt_len, running.num_tokens)
            self._finish(running, FinishReason.STOP, usage, released.text, released.matched, report)
        elif released.text:
            report.chunks.append(Chunk(sequence.request, released.text, sequence.undelivered.token_ids))
            sequence.undelivered = Undelivered()

    def _on_end(self, running: _Running, answered: Answered, report: StepReport) -> None:
        sequence = running.sequence
        held = sequence.stop.flush()
        reason = answered.reason if held.matched is None else FinishReason.STOP
        usage = _usage(sequence, answered.prompt_tokens, answered.completion_tokens)
        self._finish(running, reason, usage, held.text, held.matched, report)

    def _finish(
        self, running: _Running, reason: FinishReason, usage: Usage, text: str, stop: str | None, report: StepReport
    ) -> None:
        sequence, now = running.sequence, self._clock()
        admitted = now if sequence.admitted_at is None else sequence.admitted_at
        first = now if sequence.first_token_at is None else sequence.first_token_at
        self._queue.end(sequence)
        report.finished.append(
            Finished(
                request=sequence.request,
                reason=reason,
                usage=usage,
                timings=Timings(queue_s=admitted - sequence.arrived_at, prefill_s=first - admitted, decode_s=now - first),
                text=text,
                token_ids=sequence.undelivered.token_ids,
                stop=stop,
            )
        )

    def _release(self, sequence: Sequence) -> None:
        self._texts.pop(sequence.request, None)
        running = self._running.pop(sequence.request, None)
        if running is not None:
            running.answer.cancel()
            self._cancelled[running.thread] = self._clock()

    def _check_cancelled(self) -> None:
        now = self._clock()
        self._cancelled = {thread: since for thread, since in self._cancelled.items() if thread in self._threads}
        if any(now - since > HUNG_S for since in self._cancelled.values()):
            raise EngineBroken(f"a cancelled answer has not ended for {HUNG_S:g} s")

    def _can_start(self, sequence: Sequence) -> bool:
        """Whether a request can start. A cancelled answer keeps its slot while it computes.

        A request that runs alone always has memory.
        """
        if len(self._threads) >= self._options.num_slots:
            return False
        needed = self._bytes_of(sequence)
        return not self._running or self._reserved_bytes() + needed <= self._kv_budget_bytes

    def _reserved_bytes(self) -> int:
        return sum(map(self._bytes_of, self._queue.scheduler.running))

    def _bytes_of(self, sequence: Sequence) -> int:
        """KV of the prompt and of the longest answer, which such models reserve at the start."""
        return len(sequence.tokens) * self.info.kv_bytes_per_token


def _usage(sequence: Sequence, prompt_tokens: int, completion_tokens: int) -> Usage:
    thought = sequence.thought
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        reasoning_tokens=0 if thought is None else min(thought.num_tokens, completion_tokens),
    )
