"""The loop: admit, plan, step, sample, deliver. Owns the order of things; every decision is made in another file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from runtime.batching.chooser import Chooser
from runtime.batching.delivery import Delivery, started
from runtime.batching.intake import Intake
from runtime.batching.queue import RequestQueue
from runtime.batching.runner import Runner
from runtime.batching.sampler import Logits, Sampler
from runtime.batching.scheduler import PrefillChunk, StepCosts, chunk_size, plan_jump, prefill_budget
from runtime.batching.sequence import Sequence, SequenceStatus
from runtime.batching.slots import Slots
from runtime.protocol.messages import EngineOptions, ModelInfo, Stats, StepReport, Submit
from runtime.protocol.request import Prompt
from runtime.text.tokenizer import Tokenizer

SMALLEST_CHUNK, LARGEST_CHUNK = 16, 256
LARGEST_SCORED_CHUNK = 64  # of prompts with log probabilities: each token has a row of logits
IDLE_SLACK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """kv_budget_bytes: KV of all rows, see EngineOptions; here it is resolved to a number."""

    options: EngineOptions
    kv_budget_bytes: int
    eos_ids: frozenset[int]


class BatchingEngine:
    """Continuous batching over a `Runner` (Orca, Yu et al. 2022), with chunked prefill. Implements `engines.protocol.Engine`."""

    def __init__(
        self,
        info: ModelInfo,
        runner: Runner,
        intake: Intake,
        limits: Limits,
        *,
        resident_bytes: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.info = info
        self._threads = info.threads
        self._runner = runner
        self._intake = intake
        self._limits = limits
        self._clock = clock
        self._queue = RequestQueue(
            info,
            max_waiting=limits.options.max_waiting,
            kv_budget_bytes=limits.kv_budget_bytes,
            release=self._release,
            resident_bytes=resident_bytes,
            clock=clock,
        )
        self._scheduler = self._queue.scheduler
        self._slots = Slots(runner.kv, num_slots=limits.options.num_slots, prefix_cache_bytes=limits.options.prefix_cache_bytes)
        token_bytes = intake.tokenizer.token_bytes(skip_special_tokens=False)
        self._delivery = Delivery(limits.eos_ids, clock, token_bytes)
        self._chooser = Chooser(Sampler(limits.eos_ids), self._delivery, token_bytes)
        self._costs = StepCosts()

    @property
    def num_unfinished(self) -> int:
        return self._queue.num_unfinished

    def prepare(self, submit: Submit) -> Sequence:
        return self._intake.prepare(submit)

    @property
    def tokenizer(self) -> Tokenizer:
        return self._intake.tokenizer

    def tokenize(self, prompt: Prompt) -> list[int]:
        return self._intake.tokens(prompt)

    def add(self, sequence: Sequence) -> None:
        self._queue.add(sequence, retry_after_s=self._costs.decode_s * 64)

    def remove(self, request: int) -> None:
        self._queue.abort(request)

    def fail_all(self) -> list[int]:
        """No row's state can be trusted after a step raised: all cached KV goes too."""
        requests = self._queue.fail_all()
        self._slots.shrink(0)
        self._slots.release_unused_pages()
        return requests

    def step(self) -> StepReport:
        """One prefill or one decode of all running rows."""
        report = self._queue.begin_step()
        self._enforce_kv_budget()
        self._admit()
        plan = self._scheduler.plan_step(self._budget())
        for chunk in plan.prefill:
            self._prefill(chunk, report)
        if plan.decode:
            self._decode(report)
        if not self._queue:
            self._trim_idle_memory()
        return self._queue.end_step()

    def set_threads(self, num_threads: int) -> None:
        self._runner.set_threads(num_threads)
        self._threads = num_threads

    def stats(self) -> Stats:
        return self._queue.stats(
            active_bytes=self._active_bytes(),
            kv_bytes=self._slots.backed_bytes(),
            threads=self._threads,
            prefix_queries=self._slots.queries,
            prefix_hits=self._slots.hits,
        )

    def close(self) -> None:
        self._intake.close()
        self._runner.close()

    def _active_bytes(self) -> int:
        return sum(s.num_computed for s in self._scheduler.running) * self._runner.kv.bytes_per_token

    def _budget(self) -> int:
        return prefill_budget(
            gap_s=self._limits.options.max_token_gap_s,
            decode_s=self._costs.decode_s,
            token_s=self._costs.token_s,
            num_decoding=self._slots.num_decoding,
            smallest=SMALLEST_CHUNK,
            largest=LARGEST_CHUNK,
        )

    def _enforce_kv_budget(self) -> None:
        """Keeps KV memory within its budget: frees unused and cached rows first, then preempts a running sequence.

        Pages that a row's earlier holder touched are not counted: they are freed with the row.
        """
        self._slots.enforce_kv_budget(self._limits.kv_budget_bytes)
        if self._active_bytes() <= self._limits.kv_budget_bytes:
            return
        victim = self._scheduler.plan_preemption()
        if victim is not None:
            self._preempt(victim)
            self._slots.shrink(0)

    def _preempt(self, victim: Sequence) -> None:
        """What it computed is kept, while there is memory for it, and computed again otherwise."""
        self._slots.release(victim, was_decoding=victim.status is SequenceStatus.DECODE, returns=True)
        self._queue.preempt(victim)
        victim.lose_row()

    def _trim_idle_memory(self) -> None:
        """When idle, returns memory beyond that of cached rows to the system, once it is worth the system calls."""
        held = self._slots.num_cached_tokens * self._runner.kv.bytes_per_token
        if self._slots.backed_bytes() - held > IDLE_SLACK_BYTES:
            self._slots.release_unused_pages()

    def _admit(self) -> None:
        while (sequence := self._scheduler.first_waiting()) is not None and self._has_memory_for(sequence):
            self._enter(sequence)
        while (swap := self._scheduler.plan_exchange()) is not None and self._has_memory_for(swap.newcomer, swap.victim):
            self._preempt(swap.victim)
            self._enter(swap.newcomer)

    def _enter(self, sequence: Sequence) -> None:
        self._queue.admit(sequence)
        self._slots.place(sequence)
        if sequence.num_computed >= sequence.prompt_len:  # it had been preempted, and its row is still there
            self._slots.start_decoding(sequence)
            sequence.move_to(SequenceStatus.DECODE)

    def _has_memory_for(self, sequence: Sequence, instead_of: Sequence | None = None) -> bool:
        """Whether there is memory for the prompt: beside running rows it must fit into the rest; cached rows make room."""
        others = [each for each in self._scheduler.running if each is not instead_of]
        if not others:
            return True
        held = sum(s.num_tokens + 1 for s in others) + sequence.num_tokens + 1  # each grows in the next step
        return held * self._runner.kv.bytes_per_token <= self._limits.kv_budget_bytes

    def _announce(self, sequence: Sequence, report: StepReport) -> None:
        sequence.is_announced = True
        report.started.append(started(sequence))

    def _prefill(self, chunk: PrefillChunk, report: StepReport) -> None:
        sequence = chunk.sequence
        is_scored = sequence.reads_prompt and not sequence.is_announced
        if not sequence.is_announced and not is_scored:
            self._slots.catch_up(sequence)
            self._announce(sequence, report)
        start, began = sequence.num_computed, self._clock()
        most = min(chunk.num_tokens, LARGEST_SCORED_CHUNK) if is_scored else chunk.num_tokens
        size = chunk_size(sequence.prompt_len - start, most)
        if size == 0:
            return  # the budget ran out on it; the next step begins with it
        end = start + size
        tokens = sequence.tokens[start:end]
        logits = self._runner.prefill(sequence.slot, tokens, start, num_logits=size if is_scored else 1, adapter=sequence.adapter)
        sequence.num_computed = end
        if is_scored:
            self._chooser.read_prompt(sequence, start, logits)
        else:
            self._costs.saw_prefill(self._clock() - began, size)
        if end == sequence.prompt_len:
            self._end_prompt(sequence, logits[-1:], report)

    def _end_prompt(self, sequence: Sequence, logits: Logits, report: StepReport) -> None:
        """The prompt is computed, and its last logits [1, vocab] choose the first token, if one is wanted."""
        if not sequence.is_announced:
            self._announce(sequence, report)
        if sequence.params.max_tokens == 0:
            self._delivery.end_prompt(sequence, report)
            self._queue.end(sequence)
            return
        self._slots.start_decoding(sequence)
        sequence.move_to(SequenceStatus.DECODE)
        self._choose([sequence], logits, report)

    def _decode(self, report: StepReport) -> None:
        """Verifies the rows that jump, one at a time; then decodes a step of all others."""
        began = self._clock()
        for sequence in self._slots.decoding():
            self._jump(sequence, report)
        rows = self._slots.decoding()
        if not rows:
            return
        tokens = np.fromiter((s.next_input for s in rows), np.int32, len(rows))
        for sequence in rows:
            sequence.num_computed += 1
        lengths = np.fromiter((s.num_computed for s in rows), np.int32, len(rows))
        adapters = np.fromiter((s.adapter for s in rows), np.int32, len(rows))
        logits = self._runner.decode(tokens, lengths, adapters)
        self._choose(rows, logits, report)
        self._costs.saw_decode(self._clock() - began)

    def _jump(self, sequence: Sequence, report: StepReport) -> None:
        jump = plan_jump(sequence, self._slots.num_decoding)
        if jump is None:
            return
        start = sequence.num_computed
        logits = self._runner.prefill(sequence.slot, jump.tokens, start, num_logits=1 + jump.num_drafted, adapter=sequence.adapter)
        if jump.replays_to is not None:
            sequence.num_computed = jump.replays_to
        elif self._chooser.verify_draft(sequence, jump, logits, report):
            self._queue.end(sequence)

    def _choose(self, rows: list[Sequence], logits: Logits, report: StepReport) -> None:
        """A row whose next tokens are known already computes them first; only then is it sampled again."""
        due = [row for row, s in enumerate(rows) if s.num_computed == s.num_tokens]
        if len(due) < len(rows):
            rows, logits = [rows[row] for row in due], logits[due]
        for sequence in self._chooser.choose(rows, logits, report):
            self._queue.end(sequence)

    def _release(self, sequence: Sequence) -> None:
        if sequence.slot >= 0:
            self._slots.release(sequence, was_decoding=sequence.status is SequenceStatus.DECODE)
