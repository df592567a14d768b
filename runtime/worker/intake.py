"""A worker's two intake threads: they prepare requests and answer questions to the tokenizer. They step no engine.

Requests that need programs of others, chat templates and grammars, have a thread of their own: plain texts never wait for them.
What is being prepared stays first in its queue until it is done, so that the watchdog sees a preparation without end. A library's
panic is one request's failure, like any exception; whatever else is no `Exception` ends the thread and the worker.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from runtime.batching.failures import broken, failed
from runtime.engines.protocol import Engine, Prepared
from runtime.protocol.errors import Field, InvalidRequest, RuntimeFailure
from runtime.protocol.events import Failed
from runtime.protocol.framing import FrameWriter
from runtime.protocol.messages import Detokenize, Detokenized, Drain, StepReport, Submit, Tokenize, Tokenized
from runtime.protocol.request import ChatPrompt
from runtime.text.tokenizer import is_panic
from runtime.worker.threads import log_error

Unprepared = Submit | Tokenize | Detokenize | Drain


class PreparationQueue:
    """Thread-safe; one thread calls `first` and `done`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[Unprepared] = deque()
        self._first_since = 0.0

    def put(self, message: Unprepared) -> None:
        with self._changed:
            if not self._waiting:
                self._first_since = self._clock()
            self._waiting.append(message)
            self._changed.notify()

    def first(self) -> Unprepared:
        """Blocks while there is none. Stays first until `done`."""
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            return self._waiting[0]

    def done(self) -> None:
        with self._changed:
            self._waiting.popleft()
            self._first_since = self._clock()

    def oldest(self) -> tuple[int | None, float]:
        """The number of the first request, and the seconds since it became the first; (None, 0) when nothing waits."""
        with self._changed:
            if not self._waiting:
                return None, 0.0
            first = self._waiting[0]
            number = None if isinstance(first, Drain) else first.request
            return number, self._clock() - self._first_since


def answered(engine: Engine, inquiry: Tokenize | Detokenize) -> Tokenized | Detokenized:
    """Thread-safe. Raises InvalidRequest."""
    return _tokenized(engine, inquiry) if isinstance(inquiry, Tokenize) else _detokenized(engine, inquiry)


def _tokenized(engine: Engine, inquiry: Tokenize) -> Tokenized:
    ids = engine.tokenize(inquiry.prompt)
    read = engine.tokenizer.token_bytes(skip_special_tokens=False)
    return Tokenized(
        request=inquiry.request,
        token_ids=ids,
        tokens=[read(token) for token in ids],
        context_length=engine.info.context_length,
    )


def _detokenized(engine: Engine, inquiry: Detokenize) -> Detokenized:
    """Special tokens are written out."""
    vocab_size = engine.info.vocab_size
    if any(not 0 <= token < vocab_size for token in inquiry.token_ids):
        raise InvalidRequest(f"A token id is outside the vocabulary (0 to {vocab_size - 1}).", field=Field.TOKEN_IDS)
    return Detokenized(request=inquiry.request, text=engine.tokenizer.decode(inquiry.token_ids))


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that did not get as far as the engine."""

    failed: Failed


@dataclass(frozen=True, slots=True)
class Skipped:
    """A request that was aborted before it was prepared."""

    request: int


Outcome = Prepared | Refused | Skipped | Drain


class IntakeThreads:
    """deliver: gets the outcomes, and a Drain once all before it are delivered. is_aborted: whether a request was aborted."""

    def __init__(
        self, engine: Engine, output: FrameWriter, deliver: Callable[[Outcome], None], is_aborted: Callable[[int], bool]
    ) -> None:
        self._deliver = deliver
        self._drains = 0
        self._draining = threading.Lock()
        self.of_programs = IntakeThread(engine, output, self._deliver_once, is_aborted)
        self.of_texts = IntakeThread(engine, output, self._deliver_once, is_aborted)

    def put(self, message: Unprepared) -> None:
        """Called from the reading thread."""
        if isinstance(message, Drain):
            self.of_programs.put(message)
            self.of_texts.put(message)
        elif _runs_programs(message):
            self.of_programs.put(message)
        else:
            self.of_texts.put(message)

    def withdraw(self, request: int) -> bool:
        """Called from the reading thread. Returns whether it was an inquiry to the tokenizer."""
        return self.of_programs.withdraw(request) or self.of_texts.withdraw(request)

    def oldest(self) -> tuple[int | None, float]:
        """Like `PreparationQueue.oldest`, over both queues."""
        return max(self.of_programs.queue.oldest(), self.of_texts.queue.oldest(), key=lambda oldest: oldest[1])

    def _deliver_once(self, outcome: Outcome) -> None:
        if isinstance(outcome, Drain):
            with self._draining:
                self._drains += 1
                if self._drains < 2:
                    return
        self._deliver(outcome)


def _runs_programs(message: Submit | Tokenize | Detokenize) -> bool:
    if isinstance(message, Detokenize):
        return False
    return isinstance(message.prompt, ChatPrompt) or (isinstance(message, Submit) and message.params.grammar is not None)


class IntakeThread:
    """One of them. It delivers in the order in which requests came."""

    def __init__(
        self, engine: Engine, output: FrameWriter, deliver: Callable[[Outcome], None], is_aborted: Callable[[int], bool]
    ) -> None:
        self._engine = engine
        self._output = output
        self._deliver = deliver
        self._is_aborted = is_aborted
        self._unanswered: set[int] = set()  # inquiries to the tokenizer that were not withdrawn
        self.queue = PreparationQueue()

    def put(self, message: Unprepared) -> None:
        if isinstance(message, Tokenize | Detokenize):
            self._unanswered.add(message.request)
        self.queue.put(message)

    def withdraw(self, request: int) -> bool:
        was_unanswered = request in self._unanswered
        self._unanswered.discard(request)
        return was_unanswered

    def run(self) -> None:
        """Runs for ever."""
        while True:
            match self.queue.first():
                case Submit() as submit:
                    self._deliver(self._prepare(submit))
                case Drain() as drain:
                    self._deliver(drain)
                case inquiry if inquiry.request in self._unanswered:
                    self._answer(inquiry)
                    self._unanswered.discard(inquiry.request)
            self.queue.done()

    def _prepare(self, submit: Submit) -> Prepared | Refused | Skipped:
        if self._is_aborted(submit.request):
            return Skipped(submit.request)
        try:
            return self._engine.prepare(submit)
        except BaseException as error:
            return Refused(_failure_of(submit.request, error))

    def _answer(self, inquiry: Tokenize | Detokenize) -> None:
        """Answers at once, whatever the engine is doing."""
        try:
            self._output.write(answered(self._engine, inquiry))
        except BrokenPipeError:
            pass  # the gateway is gone, as the reading thread is about to find
        except BaseException as error:
            self._output.write(StepReport(failed=[_failure_of(inquiry.request, error)]))


def _failure_of(request: int, error: BaseException) -> Failed:
    """Raises what is more than one request's failure."""
    if isinstance(error, RuntimeFailure):
        return failed(request, error)
    if not isinstance(error, Exception) and not is_panic(error):
        raise error
    log_error(error, "the preparation of a request")
    return broken(request, error)
