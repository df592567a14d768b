"""From a submitted request to a sequence: template, tokens, limits, defaults. Thread-safe; knows no queue and no model."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable

import numpy as np

from runtime.batching.sequence import ResolvedParams, Sequence
from runtime.batching.stop import StopMatcher
from runtime.chat_template import ChatTemplate
from runtime.errors import InvalidRequest
from runtime.messages import Submit
from runtime.model_folder import GenerationDefaults, ModelFolder
from runtime.request import ChatPrompt, Prompt, SamplingParams, TextPrompt, TokensPrompt
from runtime.text_stream import TextStream
from runtime.tokenizer import ModelTokenizer, Tokenizer

COUNTED_CHARS = 1 << 20  # a text up to this long is tokenized in any case, so that the error can say how long it is
Clock = Callable[[], float]

GREEDY_BELOW = 1e-5  # as in vLLM: logits divided by less leave float32


class Intake:
    """context_length: tokens of prompt and output together. template None: the model takes no chat messages.

    vocab_size: of the model; its tokenizer may know fewer tokens, or more.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        *,
        defaults: GenerationDefaults,
        context_length: int,
        vocab_size: int,
        clock: Clock,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self._defaults = defaults
        self._context_length = context_length
        self._vocab_size = vocab_size
        self._clock = clock

    @classmethod
    def of_folder(cls, folder: ModelFolder, context_length: int) -> Intake:
        """As the model's folder says."""
        return cls(
            ModelTokenizer(folder.tokenizer_path),
            ChatTemplate(folder.chat_template, folder.special_tokens) if folder.chat_template else None,
            defaults=folder.defaults,
            context_length=context_length,
            vocab_size=folder.vocab_size,
            clock=time.monotonic,
        )

    def prepare(self, submit: Submit) -> Sequence:
        """Raises InvalidRequest."""
        now = self._clock()
        ids = self._tokens(submit.prompt)
        params = self._resolve(submit.params, len(ids))
        tokens = np.zeros(len(ids) + params.max_tokens, np.int32)
        tokens[: len(ids)] = ids
        asked = submit.params
        seed = secrets.randbits(64) if asked.seed is None else asked.seed % (1 << 64)
        return Sequence(
            request=submit.request,
            params=params,
            tokens=tokens,
            prompt_len=len(ids),
            num_tokens=len(ids),
            text=TextStream(self.tokenizer.token_bytes(skip_special_tokens=asked.skip_special_tokens)),
            stop=StopMatcher(asked.stop, include=asked.include_stop_str_in_output),
            rng=np.random.Generator(np.random.Philox(seed)),
            priority=submit.priority,
            arrived_at=now,
            deadline_at=None if submit.deadline_s is None else now + submit.deadline_s,
            prompt_text=self.tokenizer.decode(ids) if submit.return_prompt_text else None,
        )

    def _tokens(self, prompt: Prompt) -> list[int]:
        """Prompt tokens, at least one and less than the context."""
        match prompt:
            case TokensPrompt(token_ids=ids):
                field = "prompt"
            case TextPrompt(text=text, add_special_tokens=special):
                field = "prompt"
                ids = self._encode(text, field, special)
            case ChatPrompt():
                field = "messages"
                ids = self._encode(self._render(prompt), field, False)
        if not ids:
            raise InvalidRequest("The prompt is empty: it must hold at least one token.", param=field)
        if len(ids) >= self._context_length:
            raise self._too_long(f"{len(ids)}", field)
        if min(ids) < 0 or max(ids) >= self._vocab_size:
            raise InvalidRequest(
                f"A token id in the prompt is outside the vocabulary (0 to {self._vocab_size - 1}).", param=field
            )
        return ids

    def _encode(self, text: str, field: str, add_special_tokens: bool) -> list[int]:
        """Refuses megabytes that cannot fit before they are tokenized, which would take seconds and as many hundred megabytes."""
        at_least = len(text) // self.tokenizer.longest_token
        if len(text) > COUNTED_CHARS and at_least >= self._context_length:
            raise self._too_long(f"at least {at_least}", field)
        return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def _too_long(self, count: str, field: str) -> InvalidRequest:
        return InvalidRequest(
            f"This model's maximum context length is {self._context_length} tokens, but the prompt has {count} tokens. "
            "Shorten the prompt; one token at least must remain for the answer.",
            param=field,
            code="context_length_exceeded",
        )

    def _render(self, prompt: ChatPrompt) -> str:
        if self.template is None:
            raise InvalidRequest(
                "This model has no chat template: it continues text. Use /v1/completions, or a model tuned for chat.",
                param="messages",
                code="no_chat_template",
            )
        return self.template.render(prompt)

    def _resolve(self, asked: SamplingParams, prompt_len: int) -> ResolvedParams:
        defaults, room = self._defaults, self._context_length - prompt_len
        _check_ids("logit_bias", asked.logit_bias, self._vocab_size)
        _check_ids("stop_token_ids", asked.stop_token_ids, self._vocab_size)
        top_k = _first(asked.top_k, defaults.top_k)
        temperature = _first(asked.temperature, defaults.temperature)
        if not math.isfinite(temperature) or temperature < 0:
            raise InvalidRequest("temperature must be a number of at least 0.", param="temperature")
        resolved = ResolvedParams(
            temperature=temperature if temperature >= GREEDY_BELOW else 0.0,
            top_k=max(0, int(top_k)),
            top_p=_first(asked.top_p, defaults.top_p),
            min_p=_first(asked.min_p, defaults.min_p),
            typical_p=_first(asked.typical_p, 1.0),
            repetition_penalty=_first(asked.repetition_penalty, defaults.repetition_penalty),
            max_tokens=room if asked.max_tokens is None else min(asked.max_tokens, room),
            asked=asked,
        )
        if resolved.max_tokens < 1:
            raise InvalidRequest("max_tokens must be at least 1.", param="max_tokens")
        return resolved


def _first(asked: float | None, default: float) -> float:
    return default if asked is None else asked


def _check_ids(field: str, ids: object, vocab_size: int) -> None:
    assert isinstance(ids, dict | tuple)
    outside = [i for i in ids if not 0 <= i < vocab_size]
    if outside:
        raise InvalidRequest(f"{field} names token {outside[0]}, outside the vocabulary (0 to {vocab_size - 1}).", param=field)
