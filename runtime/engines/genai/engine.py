"""The engine around onnxruntime-genai: admit, step, deliver. Knows no vendor: its `Decoder` computes the tokens.

Which requests run, in which order, until when, and what becomes of their tokens is decided as in our own engine, by the same parts:
intake, queue, delivery. A decoder that raises for one sequence fails that one; the others go on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from runtime.batching.delivery import Delivery, started
from runtime.batching.engine import Limits
from runtime.batching.failures import broken
from runtime.batching.intake import Intake
from runtime.batching.queue import RequestQueue
from runtime.batching.scheduler import StepPlan
from runtime.batching.sequence import Sequence, SequenceStatus
from runtime.protocol.errors import Field, InvalidRequest
from runtime.protocol.events import TokenLogprob
from runtime.protocol.messages import ModelInfo, Stats, StepReport, Submit
from runtime.protocol.request import Prompt
from runtime.text.constraints.constraint import ConstraintBroken
from runtime.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Decoded:
    """A sequence's next token, or the error in its place. logprob: if requested."""

    sequence: Sequence
    token: int | None = None
    error: Exception | None = None
    logprob: TokenLogprob | None = None


def refuse_beyond(sequence: Sequence, fields: Iterable[Field]) -> None:
    """Raises InvalidRequest if one of these fields is set, since the engine does not support it."""
    for field in fields:
        if getattr(sequence.params.requested, field) is not None:
            raise InvalidRequest(
                f"The engine of this model has no {field.quoted}. Leave it out, or serve the model with the engine onnx.",
                field=field,
                code="unsupported_parameter",
            )


class Decoder(Protocol):
    """What a vendor's runtime does for sequences that were admitted. Byte counts are of the KV memory that it holds.

    can_pause: whether a sequence that was started may be left out of steps for a while.
    """

    can_pause: bool
    prefix_queries: int
    prefix_hits: int

    def check(self, sequence: Sequence) -> None:
        """Raises InvalidRequest for what this decoder cannot do. Thread-safe."""
        ...

    def can_start(self, sequence: Sequence) -> bool:
        """Whether there is memory for it beside those that run."""
        ...

    def start(self, sequence: Sequence) -> None:
        """Admits the sequence, and sets how much of its prompt is cached."""
        ...

    def prefill_budget(self, num_decoding: int) -> int:
        """Prompt tokens that the next step may compute, with so many sequences beside that decode."""
        ...

    def step(self, plan: StepPlan) -> list[Decoded]:
        """Does what is planned, or what it plans itself. Raises nothing that is one sequence's matter."""
        ...

    def stop(self, sequence: Sequence) -> None:
        """It has ended or was aborted. Does nothing for one that was discarded."""
        ...

    def discard(self, sequence: Sequence) -> None:
        """It failed: nothing of it can be trusted."""
        ...

    def running_bytes(self) -> int: ...

    def cached_bytes(self) -> int: ...

    def reset(self) -> None:
        """Forgets everything."""
        ...

    def close(self) -> None: ...


class GenaiEngine:
    """Implements `engines.protocol.Engine`."""

    def __init__(
        self,
        info: ModelInfo,
        decoder: Decoder,
        intake: Intake,
        limits: Limits,
        *,
        resident_bytes: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.info = info
        self._decoder = decoder
        self._intake = intake
        self._queue = RequestQueue(
            info,
            max_waiting=limits.options.max_waiting,
            kv_budget_bytes=limits.kv_budget_bytes,
            release=self._release,
            resident_bytes=resident_bytes,
            clock=clock,
        )
        self._scheduler = self._queue.scheduler
        self._delivery = Delivery(limits.eos_ids, clock, intake.tokenizer.token_bytes(skip_special_tokens=False))

    @property
    def num_unfinished(self) -> int:
        return self._queue.num_unfinished

    def prepare(self, submit: Submit) -> Sequence:
        sequence = self._intake.prepare(submit)
        self._decoder.check(sequence)
        return sequence

    @property
    def tokenizer(self) -> Tokenizer:
        return self._intake.tokenizer

    def tokenize(self, prompt: Prompt) -> list[int]:
        return self._intake.tokens(prompt)

    def add(self, sequence: Sequence) -> None:
        self._queue.add(sequence)

    def remove(self, request: int) -> None:
        self._queue.abort(request)

    def fail_all(self) -> list[int]:
        self._decoder.reset()  # before it stops anything: it may be in no state to
        return self._queue.fail_all()

    def step(self) -> StepReport:
        """Admits, and advances every running sequence by a token, or prompts by a chunk."""
        report = self._queue.begin_step()
        self._admit(report)
        num_decoding = sum(s.status is SequenceStatus.DECODE for s in self._scheduler.running)
        plan = self._scheduler.plan_step(self._decoder.prefill_budget(num_decoding))
        for decoded in self._decoder.step(plan):
            if decoded.sequence.request in self._queue:  # else it ended with a token before this one
                self._deliver(decoded, report)
        return self._queue.end_step()

    def stats(self) -> Stats:
        running = self._decoder.running_bytes()
        return self._queue.stats(
            active_bytes=running,
            kv_bytes=running + self._decoder.cached_bytes(),
            threads=self.info.threads,
            prefix_queries=self._decoder.prefix_queries,
            prefix_hits=self._decoder.prefix_hits,
        )

    def close(self) -> None:
        self._intake.close()
        self._decoder.close()

    def _admit(self, report: StepReport) -> None:
        while (sequence := self._scheduler.first_waiting()) is not None and self._can_enter(sequence):
            self._enter(sequence, report)
        if not self._decoder.can_pause:
            return
        while (swap := self._scheduler.plan_exchange()) is not None and self._can_enter(swap.newcomer):
            self._queue.preempt(swap.victim)
            self._enter(swap.newcomer, report)

    def _can_enter(self, sequence: Sequence) -> bool:
        """One that was preempted has kept what it needs."""
        return sequence.is_announced or self._decoder.can_start(sequence)

    def _enter(self, sequence: Sequence, report: StepReport) -> None:
        self._queue.admit(sequence)
        if sequence.is_announced:
            if sequence.num_generated:
                sequence.move_to(SequenceStatus.DECODE)
            return
        try:
            self._decoder.start(sequence)
        except Exception as error:  # whatever the vendor raises: one sequence's misfortune must not be all the others'
            self._fail(sequence, error)
            return
        sequence.is_announced = True
        report.started.append(started(sequence))

    def _deliver(self, decoded: Decoded, report: StepReport) -> None:
        sequence = decoded.sequence
        if decoded.token is None:
            assert decoded.error is not None
            self._fail(sequence, decoded.error)
            return
        if sequence.status is SequenceStatus.PREFILL:
            sequence.move_to(SequenceStatus.DECODE)
        try:
            has_ended = self._delivery.deliver(sequence, decoded.token, report, decoded.logprob)
        except ConstraintBroken as error:
            self._fail(sequence, error)
            return
        if has_ended:
            self._queue.end(sequence)
        else:
            self._delivery.flush_chunk(sequence, report)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        self._decoder.discard(sequence)
        traceback.print_tb(error.__traceback__)
        self._queue.fail(sequence, broken(sequence.request, error))

    def _release(self, sequence: Sequence) -> None:
        if sequence.is_announced:
            self._decoder.stop(sequence)
