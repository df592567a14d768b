"""A chosen token becomes text, or the end of the answer. Knows no model and no queue."""

from __future__ import annotations

from collections.abc import Callable

from runtime.batching.sampler import certain
from runtime.batching.sequence import Sequence, Undelivered
from runtime.protocol.events import Chunk, Finished, FinishReason, Started, Timings, TokenLogprob, Usage
from runtime.protocol.messages import StepReport


def started(sequence: Sequence) -> Started:
    """The event of an admitted sequence; if it has log probabilities of its prompt, once the prompt is computed."""
    return Started(
        request=sequence.request,
        prompt_tokens=sequence.prompt_len,
        cached_tokens=sequence.num_cached,
        in_thought=sequence.in_thought,
        prompt_text=sequence.prompt_text,
        prompt_token_ids=sequence.prompt.tolist() if sequence.shows_prompt_ids else None,
        prompt_logprobs=sequence.prompt_logprobs or None,
    )


class Delivery:
    """eos_ids: the model's end-of-sequence tokens. token_bytes: the bytes of each token, including special ones."""

    def __init__(self, eos_ids: frozenset[int], clock: Callable[[], float], token_bytes: Callable[[int], bytes]) -> None:
        self._eos_ids = eos_ids
        self._clock = clock
        self._token_bytes = token_bytes

    def deliver(self, sequence: Sequence, token: int, report: StepReport, logprob: TokenLogprob | None = None) -> bool:
        """Adds the token, and those that must follow it, to the sequence. True: it has ended, and the report has its last event.

        logprob: the token's, if requested. Raises ConstraintBroken when the sequence cannot go on.
        """
        if self._add(sequence, token, logprob, report):
            return True
        if sequence.constraint is not None:
            num_top = sequence.params.requested.logprobs
            for follower in sequence.constraint.forced():
                logprob = None if num_top is None else certain(follower, num_top, self._token_bytes)
                if self._add(sequence, follower, logprob, report):
                    return True
        return False

    def flush_chunk(self, sequence: Sequence, report: StepReport) -> None:
        """Adds what was delivered since the last chunk to the report, once it has become text.

        Text is delivered at character borders, and only if it cannot be part of a stop string; token ids are delivered with the
        next text.
        """
        ready = sequence.undelivered
        if ready.text:
            report.chunks.append(Chunk(sequence.request, ready.text, ready.token_ids, ready.logprobs or None))
            sequence.undelivered = Undelivered()

    def end_prompt(self, sequence: Sequence, report: StepReport) -> None:
        """Ends a request that wants no token, once its prompt is computed."""
        self._finish(sequence, FinishReason.LENGTH, "", report, self._clock(), None)

    def _add(self, sequence: Sequence, token: int, logprob: TokenLogprob | None, report: StepReport) -> bool:
        sequence.append(token)
        ready = sequence.undelivered
        ready.token_ids.append(token)
        now = self._clock()
        if sequence.first_token_at is None:
            sequence.first_token_at = now
        requested = sequence.params.requested
        may_stop = sequence.num_generated > requested.min_tokens or requested.min_tokens == 0
        if may_stop and self._is_end(sequence, token):
            tail, matched = _held_text(sequence)
            return self._finish(sequence, FinishReason.STOP, tail, report, now, matched or self._named(sequence, token))
        if logprob is not None:
            ready.logprobs.append(logprob)
            sequence.cumulative_logprob += logprob.logprob
        is_complete = False
        if sequence.constraint is not None:
            sequence.constraint.accept(token)
            is_complete = sequence.constraint.is_complete
        text, matched = sequence.text.feed(token), None
        if may_stop:
            released = sequence.stop.feed(text)
            text, matched = released.text, released.matched
        if matched is not None:
            return self._finish(sequence, FinishReason.STOP, text, report, now, matched)
        if is_complete or sequence.num_generated >= sequence.params.max_tokens:
            return self._finish_full(sequence, text, is_complete, report, now)
        ready.text += text
        return False

    def _is_end(self, sequence: Sequence, token: int) -> bool:
        requested = sequence.params.requested
        return token in requested.stop_token_ids or (token in self._eos_ids and not requested.ignore_eos)

    def _named(self, sequence: Sequence, token: int) -> int | None:
        """The stop reason, as vLLM gives it: only tokens that the request itself named."""
        return token if token in sequence.params.requested.stop_token_ids else None

    def _finish_full(self, sequence: Sequence, text: str, is_complete: bool, report: StepReport, now: float) -> bool:
        """Ends a sequence that can take no further token: delivers the text that was held back, unless it contains a stop
        string.
        """
        held = sequence.stop.flush()  # but not half of a character, which only we have cut
        tail, matched = held.text, held.matched
        reason = FinishReason.STOP if is_complete or matched is not None else FinishReason.LENGTH
        return self._finish(sequence, reason, text + tail, report, now, matched)

    def _finish(
        self, sequence: Sequence, reason: FinishReason, text: str, report: StepReport, now: float, stop: str | int | None
    ) -> bool:
        admitted, ready = sequence.admitted_at, sequence.undelivered
        first = now if sequence.first_token_at is None else sequence.first_token_at
        assert admitted is not None
        wants_logprobs = sequence.params.requested.logprobs is not None
        report.finished.append(
            Finished(
                request=sequence.request,
                reason=reason,
                usage=_usage(sequence),
                timings=Timings(queue_s=admitted - sequence.arrived_at, prefill_s=first - admitted, decode_s=now - first),
                text=ready.text + text,
                token_ids=ready.token_ids,
                stop=stop,
                logprobs=ready.logprobs if wants_logprobs else None,
                cumulative_logprob=sequence.cumulative_logprob if wants_logprobs else None,
            )
        )
        return True


def _usage(sequence: Sequence) -> Usage:
    thought, draft = sequence.thought, sequence.draft
    return Usage(
        prompt_tokens=sequence.prompt_len,
        completion_tokens=sequence.num_generated,
        cached_tokens=sequence.num_cached,
        reasoning_tokens=0 if thought is None else thought.num_tokens,
        accepted_prediction_tokens=0 if draft is None else draft.num_accepted,
        rejected_prediction_tokens=0 if draft is None else draft.num_rejected,
    )


def _held_text(sequence: Sequence) -> tuple[str, str | None]:
    """What no chunk could show yet, an unfinished character or the beginning of a stop string; and the match in it, if any."""
    last = sequence.stop.feed(sequence.text.flush())
    if last.matched is not None:
        return last.text, last.matched
    held = sequence.stop.flush()
    return last.text + held.text, held.matched
