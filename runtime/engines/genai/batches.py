"""onnxruntime-genai's own engine, for models with a paged KV cache: it batches, schedules and samples; we admit, order and abort.

Its dynamic batching needs a GPU and has not run on one yet; what has run is its static batching on the CPU, through the same calls.
What its sampler cannot do is refused by name. The library is handed in, so that only one file imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runtime.batching.scheduler import StepPlan
from runtime.batching.sequence import Sequence
from runtime.engines.genai.engine import Decoded, refuse_beyond
from runtime.protocol.errors import Field, InvalidRequest

_EVENTS = 256  # of one call; what does not fit comes with the next


class TurnFailed(RuntimeError):
    """genai gave a request up; its reason is the error's text."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """eos_id: the token to deliver where genai reports only that an end-of-sequence token was chosen."""

    context: int
    vocab_size: int
    kv_bytes_per_token: int
    eos_id: int


@dataclass(slots=True)
class _Turn:
    """ended: why genai ended it, once it has."""

    sequence: Sequence
    request: Any
    ended: str | None = None


class BatchDecoder:
    """Implements `engine.Decoder`. One turn of one genai request per sequence."""

    can_pause = False  # genai steps all that it has

    def __init__(self, og: Any, model: Any, limits: BatchLimits) -> None:
        self._og = og
        self._model = model
        self._limits = limits
        self._turns: dict[int, _Turn] = {}
        self._open()
        capabilities = self._engine.get_capabilities()
        self.max_batch_size = int(capabilities.configured_max_batch_size)
        self._is_dynamic = bool(capabilities.max_scheduled_tokens)  # static groups have no such limit, and no seeds
        self.prefix_queries = 0
        self.prefix_hits = 0

    def _open(self) -> None:
        self._engine: Any = self._og.Engine(self._model)
        self._events: Any = self._engine.create_event_buffer(_EVENTS)

    def check(self, sequence: Sequence) -> None:
        refuse_beyond(sequence, (Field.LOGPROBS, Field.PROMPT_LOGPROBS, Field.PREDICTION, Field.THINKING_BUDGET))
        requested = sequence.params.requested
        beyond = {
            Field.MIN_P: sequence.params.min_p > 0,
            Field.TYPICAL_P: sequence.params.typical_p < 1,
            Field.PRESENCE_PENALTY: requested.presence_penalty != 0,
            Field.FREQUENCY_PENALTY: requested.frequency_penalty != 0,
            Field.LOGIT_BIAS: bool(requested.logit_bias),
            Field.IGNORE_EOS: requested.ignore_eos,
            Field.SEED: requested.seed is not None and not self._is_dynamic,
        }
        for field, is_requested in beyond.items():
            if is_requested:
                raise InvalidRequest(f"This model's engine samples by itself and has no {field.quoted}. Leave it out.", field=field)

    def can_start(self, sequence: Sequence) -> bool:
        """genai admits by its own pages."""
        return True

    def start(self, sequence: Sequence) -> None:
        session = self._og.RequestOptions()
        session.set_max_session_tokens(min(len(sequence.tokens), self._limits.context))
        request = self._engine.create_request(options=session)
        self._turns[sequence.request] = _Turn(sequence, request)
        request.begin_turn(sequence.prompt, self._options(sequence, request))
        sequence.num_computed = sequence.prompt_len
        self.prefix_queries += sequence.prompt_len

    def _options(self, sequence: Sequence, request: Any) -> Any:
        params, options = sequence.params, self._og.TurnOptions(request)
        options.set_max_generated_tokens(params.max_tokens)
        options.set_min_generated_tokens(min(params.requested.min_tokens, params.max_tokens))
        options.set_repetition_penalty(params.repetition_penalty)
        options.set_do_sample(params.temperature > 0)
        if params.temperature > 0:
            options.set_temperature(params.temperature)
            options.set_top_k(min(params.top_k, self._limits.vocab_size))
            options.set_top_p(params.top_p)
            if self._is_dynamic:
                options.set_seed(int(sequence.rng.integers(1 << 31)))
        return options

    def prefill_budget(self, num_decoding: int) -> int:
        """genai plans its steps itself."""
        return 0

    def step(self, plan: StepPlan) -> list[Decoded]:
        """Whatever the plan is: genai has its own."""
        if not self._turns:
            return []
        ended = [Decoded(turn.sequence, error=TurnFailed(turn.ended)) for turn in self._turns.values() if turn.ended]
        if ended:  # with a token that ended nothing here
            return ended
        by_request = {id(turn.request): turn for turn in self._turns.values()}
        events = [event for event in self._engine.run(self._events) if id(event.request) in by_request]
        return [self._read(event, by_request[id(event.request)]) for event in events]

    def _read(self, event: Any, turn: _Turn) -> Decoded:
        """An event has a token, or the end of the turn, or both."""
        flags, sequence = self._og.EngineEventFlags, turn.sequence
        if event.flags & flags.FAILED:
            return Decoded(sequence, error=TurnFailed(str(event.error_code)))
        if event.flags & flags.TURN_FINISHED:
            sequence.num_cached = int(event.usage.cached_prompt_tokens)
            self.prefix_hits += sequence.num_cached
            turn.ended = str(event.finish_reason)
        if event.flags & flags.TOKEN:
            sequence.num_computed += 1
            return Decoded(sequence, int(event.token))
        if event.finish_reason == self._og.FinishReason.EOS:
            return Decoded(sequence, self._limits.eos_id)
        return Decoded(sequence, error=TurnFailed(str(event.finish_reason)))

    def stop(self, sequence: Sequence) -> None:
        self.discard(sequence)

    def discard(self, sequence: Sequence) -> None:
        turn = self._turns.pop(sequence.request, None)
        if turn is not None:
            turn.request.close()

    def running_bytes(self) -> int:
        return sum(turn.sequence.num_computed for turn in self._turns.values()) * self._limits.kv_bytes_per_token

    def cached_bytes(self) -> int:
        """genai does not report what it keeps of ended requests."""
        return 0

    def reset(self) -> None:
        """A new engine: after some errors the old one refuses to continue."""
        self._turns.clear()
        self._open()

    def close(self) -> None:
        self._turns.clear()
        self._engine = self._events = self._model = None
