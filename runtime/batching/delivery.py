"""A chosen token becomes text, or the end of the answer. Knows no model and no queue."""

from __future__ import annotations

from collections.abc import Callable

from runtime.batching.sequence import Sequence
from runtime.events import Chunk, Finished, FinishReason, Started, Timings, Usage
from runtime.messages import StepReport


def started(sequence: Sequence) -> Started:
    """What is told of a sequence when it is admitted."""
    return Started(
        request=sequence.request,
        prompt_tokens=sequence.prompt_len,
        cached_tokens=sequence.num_cached,
        prompt_text=sequence.prompt_text,
    )


class Delivery:
    """eos_ids: the model's end-of-sequence tokens."""

    def __init__(self, eos_ids: frozenset[int], clock: Callable[[], float]) -> None:
        self._eos_ids = eos_ids
        self._clock = clock

    def deliver(self, sequence: Sequence, token: int, report: StepReport) -> bool:
        """Adds the token to the sequence, and what it says to the report. True: the sequence has ended.

        Text comes out at character borders, and only what cannot be part of a stop string; token ids travel with the next text.
        """
        sequence.append(token)
        sequence.undelivered.append(token)
        now = self._clock()
        if sequence.first_token_at is None:
            sequence.first_token_at = now
        asked = sequence.params.asked
        may_stop = sequence.num_generated > asked.min_tokens or asked.min_tokens == 0
        if may_stop and self._is_end(sequence, token):
            tail, matched = _held_text(sequence)
            return self._finish(sequence, FinishReason.STOP, tail, report, now, matched or self._named(sequence, token))
        text, matched = sequence.text.feed(token), None
        if may_stop:
            released = sequence.stop.feed(text)
            text, matched = released.text, released.matched
        if matched is not None:
            return self._finish(sequence, FinishReason.STOP, text, report, now, matched)
        if sequence.num_generated >= sequence.params.max_tokens:
            return self._finish_full(sequence, text, report, now)
        if text:
            report.chunks.append(Chunk(sequence.request, text, sequence.undelivered))
            sequence.undelivered = []
        return False

    def _is_end(self, sequence: Sequence, token: int) -> bool:
        asked = sequence.params.asked
        return token in asked.stop_token_ids or (token in self._eos_ids and not asked.ignore_eos)

    def _named(self, sequence: Sequence, token: int) -> int | None:
        """The stop reason, as vLLM gives it: only tokens that the request itself named."""
        return token if token in sequence.params.asked.stop_token_ids else None

    def _finish_full(self, sequence: Sequence, text: str, report: StepReport, now: float) -> bool:
        """max_tokens or the context is reached: what was held back comes out, unless a stop string is in it after all."""
        held = sequence.stop.flush()  # but not half of a character, which only we have cut
        tail, matched = held.text, held.matched
        reason = FinishReason.LENGTH if matched is None else FinishReason.STOP
        return self._finish(sequence, reason, text + tail, report, now, matched)

    def _finish(
        self, sequence: Sequence, reason: FinishReason, text: str, report: StepReport, now: float, stop: str | int | None
    ) -> bool:
        admitted, first = sequence.admitted_at, sequence.first_token_at
        assert admitted is not None
        assert first is not None
        report.finished.append(
            Finished(
                request=sequence.request,
                reason=reason,
                usage=Usage(
                    prompt_tokens=sequence.prompt_len,
                    completion_tokens=sequence.num_generated,
                    cached_tokens=sequence.num_cached,
                ),
                timings=Timings(queue_s=admitted - sequence.arrived_at, prefill_s=first - admitted, decode_s=now - first),
                text=text,
                token_ids=sequence.undelivered,
                stop=stop,
            )
        )
        return True


def _held_text(sequence: Sequence) -> tuple[str, str | None]:
    """What no chunk could show yet, an unfinished character or the beginning of a stop string; and the match in it, if any."""
    last = sequence.stop.feed(sequence.text.flush())
    if last.matched is not None:
        return last.text, last.matched
    held = sequence.stop.flush()
    return last.text + held.text, held.matched
