"""The queue in front of onnxruntime-genai: admit, step, deliver. Knows no vendor; how tokens come about is its `Decoder`'s matter.

Which requests run, in which order, until when, and what becomes of their tokens is decided as in our own engine, by the same parts:
intake, scheduler, delivery. A decoder that raises for one sequence fails that one; the others go on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from runtime.batching.delivery import Delivery, started
from runtime.batching.engine import Limits
from runtime.batching.failures import broken, ended_in, late, queue_full, refuse, too_late
from runtime.batching.intake import Intake
from runtime.batching.scheduler import Scheduler, StepPlan
from runtime.batching.sequence import Sequence, SequenceStatus
from runtime.constraints.constraint import ConstraintBroken
from runtime.errors import Field, InvalidRequest
from runtime.events import TokenLogprob
from runtime.messages import ModelInfo, Stats, StepReport, Submit
from runtime.request import Prompt
from runtime.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Decoded:
    """A sequence's next token, or the error for which it has none. logprob: where the request asks for it."""

    sequence: Sequence
    token: int | None = None
    error: Exception | None = None
    logprob: TokenLogprob | None = None


def refuse_beyond(sequence: Sequence, fields: Iterable[Field]) -> None:
    """Raises InvalidRequest where one of these is asked for, which the engine does not have."""
    for field in fields:
        if getattr(sequence.params.asked, field) is not None:
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
        """Takes it in, and sets how much of its prompt is cached."""
        ...

    def prefill_budget(self, num_decoding: int) -> int:
        """Prompt tokens that the next step may compute, with so many sequences beside that decode."""
        ...

    def step(self, plan: StepPlan) -> list[Decoded]:
        """Does what is planned, or what it plans itself. Raises nothing that is one sequence's matter."""
        ...

    def stop(self, sequence: Sequence) -> None:
        """It has ended or was aborted."""
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
        self._limits = limits
        self._resident_bytes = resident_bytes
        self._clock = clock
        self._scheduler = Scheduler(num_rows=info.num_slots, max_waiting=limits.options.max_waiting)
        self._delivery = Delivery(limits.eos_ids, clock, intake.tokenizer.token_bytes(skip_special_tokens=False))
        self._sequences: dict[int, Sequence] = {}
        self._num_steps = 0
        self._num_preemptions = 0
        self._report = StepReport()  # of the next step, or of one that has not returned

    @property
    def num_unfinished(self) -> int:
        """With those whose failure no step has reported yet."""
        return len(self._sequences) + len(self._report.failed)

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
        full = queue_full(self._limits.options.max_waiting)
        refuse(self._scheduler.plan_refusal(sequence), sequence, full, self._leave, self._report)
        self._sequences[sequence.request] = sequence
        self._scheduler.add(sequence)

    def remove(self, request: int) -> None:
        sequence = self._sequences.get(request)
        if sequence is not None:
            self._leave(sequence)

    def fail_all(self) -> list[int]:
        """Among the requests are those that ended in the step that raised: its report is lost."""
        requests = [*self._sequences, *ended_in(self._report)]
        for sequence in self._sequences.values():
            self._scheduler.remove(sequence)
        self._sequences.clear()
        self._report = StepReport()
        self._decoder.reset()
        return requests

    def step(self) -> StepReport:
        """Admits, and advances every running sequence by a token, or prompts by a chunk."""
        report = self._report
        self._expire(report)
        self._admit(report)
        num_decoding = sum(s.status is SequenceStatus.DECODE for s in self._scheduler.running)
        plan = self._scheduler.plan_step(self._decoder.prefill_budget(num_decoding))
        for decoded in self._decoder.step(plan):
            if decoded.sequence.request in self._sequences:  # else it ended with a token before this one
                self._deliver(decoded, report)
        self._num_steps += 1
        self._report = StepReport()
        return report

    def stats(self) -> Stats:
        running = self._decoder.running_bytes()
        whole = self.info.num_slots * self.info.context_length * self.info.kv_bytes_per_token
        return Stats(
            num_running=len(self._scheduler.running),
            num_waiting=self._scheduler.num_waiting,
            kv_usage=min(1.0, running / max(1, min(whole, self._limits.kv_budget_bytes))),
            kv_bytes=running + self._decoder.cached_bytes(),
            prefix_queries_total=self._decoder.prefix_queries,
            prefix_hits_total=self._decoder.prefix_hits,
            preemptions_total=self._num_preemptions,
            steps_total=self._num_steps,
            resident_bytes=self._resident_bytes(),
            threads=self.info.threads,
        )

    def close(self) -> None:
        self._intake.close()
        self._decoder.close()

    def _expire(self, report: StepReport) -> None:
        now = self._clock()
        for sequence in late(self._sequences.values(), now):
            self._leave(sequence)
            report.failed.append(too_late(sequence, now))

    def _admit(self, report: StepReport) -> None:
        while (sequence := self._scheduler.first_waiting()) is not None and self._can_enter(sequence):
            self._enter(sequence, report)
        if not self._decoder.can_pause:
            return
        while (swap := self._scheduler.plan_exchange()) is not None and self._can_enter(swap.newcomer):
            self._scheduler.preempt(swap.victim)
            self._num_preemptions += 1
            self._enter(swap.newcomer, report)

    def _can_enter(self, sequence: Sequence) -> bool:
        """One that was preempted has kept what it needs."""
        return sequence.is_announced or self._decoder.can_start(sequence)

    def _enter(self, sequence: Sequence, report: StepReport) -> None:
        self._scheduler.admit(sequence)
        if sequence.is_announced:
            if sequence.num_generated:
                sequence.move_to(SequenceStatus.DECODE)
            return
        sequence.admitted_at = self._clock()
        try:
            self._decoder.start(sequence)
        except Exception as error:  # whatever the vendor raises: one sequence's misfortune must not be all the others'
            self._fail(sequence, error, report)
            return
        sequence.is_announced = True
        report.started.append(started(sequence))

    def _deliver(self, decoded: Decoded, report: StepReport) -> None:
        sequence = decoded.sequence
        if decoded.token is None:
            assert decoded.error is not None
            self._fail(sequence, decoded.error, report)
            return
        if sequence.status is SequenceStatus.PREFILL:
            sequence.move_to(SequenceStatus.DECODE)
        try:
            has_ended = self._delivery.deliver(sequence, decoded.token, report, decoded.logprob)
        except ConstraintBroken as error:
            self._fail(sequence, error, report)
            return
        if has_ended:
            self._leave(sequence)
        else:
            self._delivery.tell(sequence, report)

    def _fail(self, sequence: Sequence, error: Exception, report: StepReport) -> None:
        self._decoder.discard(sequence)
        self._forget(sequence)
        traceback.print_tb(error.__traceback__)
        report.failed.append(broken(sequence.request, error))

    def _leave(self, sequence: Sequence) -> None:
        if sequence.is_announced:
            self._decoder.stop(sequence)
        self._forget(sequence)

    def _forget(self, sequence: Sequence) -> None:
        del self._sequences[sequence.request]
        self._scheduler.remove(sequence)
