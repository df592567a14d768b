"""The requests of any engine, from `add` to their end: limits, fair order, deadlines, aborts, failures, and what is reported.

An engine decides what a step computes, and holds rows, generators or threads for the sequences that run; whatever is the same for
all engines is here. Knows no model and no thread; all methods belong to the thread that steps the engine.

    add ──> waiting ──admit──> running ──end, fail, abort, deadline──> gone
               ^──────preempt─────┘
"""

from __future__ import annotations

from collections.abc import Callable

from runtime.batching.failures import failed, queue_full, too_late
from runtime.batching.scheduler import Scheduler
from runtime.batching.sequence import Sequence
from runtime.protocol.events import Failed
from runtime.protocol.messages import ModelInfo, Stats, StepReport


class RequestQueue:
    """scheduler: decides who runs and whom a step computes. Read it and call its `plan_` methods; what changes it is called here.

    info: of the loaded model; its num_slots may run at a time. max_waiting: as in EngineOptions. kv_budget_bytes: of all running
    sequences. release(sequence): gives back whatever the engine holds for a sequence that goes, once for each, whether or not it
    ever ran; its status still says where it was. clock: seconds, as the deadlines of sequences.
    """

    def __init__(
        self,
        info: ModelInfo,
        *,
        max_waiting: int,
        kv_budget_bytes: int,
        release: Callable[[Sequence], None],
        resident_bytes: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self.scheduler = Scheduler(num_rows=info.num_slots, max_waiting=max_waiting)
        self._max_waiting = max_waiting
        whole = info.num_slots * info.context_length * info.kv_bytes_per_token
        self._most_active_bytes = max(1, min(whole, kv_budget_bytes))
        self._release = release
        self._resident_bytes = resident_bytes
        self._clock = clock
        self._sequences: dict[int, Sequence] = {}  # by request
        self._report = StepReport()  # of the next step, or of one that has not returned
        self._num_steps = 0
        self._num_preemptions = 0

    def __len__(self) -> int:
        """Requests that have not ended."""
        return len(self._sequences)

    def __contains__(self, request: int) -> bool:
        return request in self._sequences

    @property
    def num_unfinished(self) -> int:
        """Requests that have not ended, and those whose failure no step has reported yet."""
        return len(self._sequences) + len(self._report.failed)

    # ---- a request's way ----

    def add(self, sequence: Sequence, *, retry_after_s: float = 1.0) -> None:
        """Queues a request. When the queue is full, the requests of whoever has the most there are failed with OverCapacity.

        retry_after_s: when it may have room again, at least a second. Raises OverCapacity when the newcomer itself is refused.
        """
        for loser in self.scheduler.plan_refusal(sequence):
            refusal = queue_full(self._max_waiting, retry_after_s)
            if loser is sequence:
                raise refusal
            self.fail(loser, failed(loser.request, refusal))
        self._sequences[sequence.request] = sequence
        self.scheduler.add(sequence)

    def admit(self, sequence: Sequence) -> None:
        """The sequence runs from now on; the engine has what it takes."""
        self.scheduler.admit(sequence)
        if sequence.admitted_at is None:
            sequence.admitted_at = self._clock()

    def preempt(self, sequence: Sequence) -> None:
        """A running sequence waits again. What the engine holds for it is the engine's matter: `release` is not called."""
        self.scheduler.preempt(sequence)
        self._num_preemptions += 1

    def end(self, sequence: Sequence) -> None:
        """The sequence goes; whatever is to be reported of it has been."""
        del self._sequences[sequence.request]
        self._release(sequence)
        self.scheduler.remove(sequence)

    def fail(self, sequence: Sequence, failure: Failed) -> None:
        """The sequence goes, and the step in progress, or else the next one, reports why."""
        self.end(sequence)
        self._report.failed.append(failure)

    def abort(self, request: int) -> None:
        """The request goes and nothing is reported of it; unknown ones have just ended."""
        sequence = self._sequences.get(request)
        if sequence is not None:
            self.end(sequence)

    def fail_all(self) -> list[int]:
        """After a step raised: every request goes. Returns them, for the caller to report their failure.

        Among them are those that ended in that step: its report is lost, and no caller may be left waiting.
        """
        report, self._report = self._report, StepReport()
        requests = [*self._sequences, *(each.request for each in report.finished), *(each.request for each in report.failed)]
        for sequence in list(self._sequences.values()):
            self.end(sequence)
        return requests

    # ---- a step's way ----

    def begin_step(self) -> StepReport:
        """Fails those whose deadline has come. Returns the report that this step adds to."""
        now = self._clock()
        for sequence in list(self._sequences.values()):
            if sequence.deadline_at is not None and sequence.deadline_at <= now:
                self.fail(sequence, too_late(sequence, now))
        return self._report

    def end_step(self) -> StepReport:
        """Returns the step's report; what happens from here on, the next step reports."""
        report, self._report = self._report, StepReport()
        self._num_steps += 1
        return report

    def stats(self, *, active_bytes: int, kv_bytes: int, threads: int, prefix_queries: int = 0, prefix_hits: int = 0) -> Stats:
        """active_bytes: KV of running sequences; kv_bytes: KV memory held, cached included. Prefixes are counted in tokens."""
        return Stats(
            num_running=len(self.scheduler.running),
            num_waiting=self.scheduler.num_waiting,
            kv_usage=min(1.0, active_bytes / self._most_active_bytes),
            kv_bytes=kv_bytes,
            prefix_queries_total=prefix_queries,
            prefix_hits_total=prefix_hits,
            preemptions_total=self._num_preemptions,
            steps_total=self._num_steps,
            resident_bytes=self._resident_bytes(),
            threads=threads,
        )
