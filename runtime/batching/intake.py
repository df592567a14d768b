"""From a submitted request to a sequence: template, tokens, limits, defaults. Thread-safe; knows no queue and no model."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable

import numpy as np

from model_registry.records import Capability
from runtime.batching.draft import Draft
from runtime.batching.sequence import ResolvedParams, Sequence
from runtime.engines.model_folder import GenerationDefaults, ModelFolder
from runtime.protocol.errors import Field, InvalidRequest
from runtime.protocol.messages import EngineOptions, Submit
from runtime.protocol.request import ChatPrompt, Prompt, SamplingParams, TextPrompt, TokensPrompt
from runtime.text.answer_form import AnswerForms, Compiler
from runtime.text.chat_prompts import ChatFormats, ChatPrompts, Template
from runtime.text.constraints.compiler import GrammarCompiler
from runtime.text.preparation import ModelPreparation
from runtime.text.stream import StopMatcher, TextStream
from runtime.text.tokenizer import ModelTokenizer, Tokenizer

COUNTED_CHARS = 1 << 20  # a text up to this long is tokenized in any case, so that the error can state its length
Clock = Callable[[], float]

GREEDY_BELOW = 1e-5  # as in vLLM: logits divided by less leave float32
_NO_FORMATS = ChatFormats()


class Intake:
    """context_length: tokens of prompt and output together. template None: the model takes no chat messages.

    vocab_size: of the model; its tokenizer may know fewer tokens, or more. compiler: None: the engine can follow no grammar.
    adapters: that requests may name, in the order that the runner counts them.
    preparation: what runs the template and tries grammars, to be closed with the intake.
    capabilities: what can be prepared here, whatever the engine adds to it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template | None,
        *,
        defaults: GenerationDefaults,
        context_length: int,
        vocab_size: int,
        clock: Clock,
        eos_ids: frozenset[int] = frozenset(),
        formats: ChatFormats = _NO_FORMATS,
        compiler: Compiler | None = None,
        adapters: tuple[str, ...] = (),
        preparation: ModelPreparation | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.formats = formats
        self._chat = ChatPrompts(template, formats)
        self._forms = AnswerForms(tokenizer, formats, compiler, vocab_size=vocab_size, eos_ids=eos_ids)
        self._defaults = defaults
        self._context_length = context_length
        self._vocab_size = vocab_size
        self._clock = clock
        self._adapters = adapters
        self._preparation = preparation
        self.template_error = None if preparation is None else preparation.template_error
        self.capabilities = _capabilities(template is not None and self.template_error is None, compiler is not None)

    def close(self) -> None:
        if self._preparation is not None:
            self._preparation.close()

    @classmethod
    def of_folder(
        cls,
        folder: ModelFolder,
        context_length: int,
        options: EngineOptions,
        *,
        constrains: bool = True,
        adapters: tuple[str, ...] = (),
    ) -> Intake:
        """Built from the model's folder and the options' formats. constrains: whether the engine can hold rows to grammars.

        Raises ValueError for a format that is not known. A chat template that does not compile is no error here: it fails the
        requests that need it.
        """
        preparation = ModelPreparation(folder.chat_template, folder.special_tokens)
        tokenizer = ModelTokenizer(folder.tokenizer_path)
        trial = preparation.grammar_complaint
        return cls(
            tokenizer,
            None if folder.chat_template is None else preparation,
            defaults=folder.defaults,
            context_length=context_length,
            vocab_size=folder.vocab_size,
            clock=time.monotonic,
            eos_ids=folder.eos_ids,
            formats=ChatFormats.of(options, folder.chat_template),
            compiler=GrammarCompiler(tokenizer, folder.eos_ids, folder.vocab_size, trial=trial) if constrains else None,
            adapters=adapters,
            preparation=preparation,
        )

    def prepare(self, submit: Submit) -> Sequence:
        """Raises InvalidRequest."""
        now, requested = self._clock(), submit.params
        adapter = self._adapter(submit.adapter)
        text, ids = self._read(submit.prompt)
        self._check_size(submit.prompt, ids)
        params = self._resolve(requested, len(ids))
        form = self._forms.form(submit.prompt, text, requested)
        tokens = np.zeros(len(ids) + params.max_tokens, np.int32)
        tokens[: len(ids)] = ids
        seed = secrets.randbits(64) if requested.seed is None else requested.seed % (1 << 64)
        return Sequence(
            request=submit.request,
            params=params,
            tokens=tokens,
            prompt_len=len(ids),
            num_tokens=len(ids),
            text=TextStream(self._reader(submit)),
            stop=StopMatcher(requested.stop, include=requested.include_stop_str_in_output),
            rng=np.random.Generator(np.random.Philox(seed)),
            priority=submit.priority,
            principal=submit.principal,
            group=submit.group,
            arrived_at=now,
            deadline_at=None if submit.deadline_s is None else now + submit.deadline_s,
            adapter=adapter,
            constraint=form.constraint,
            thought=form.thought,
            in_thought=form.in_thought,
            draft=None if requested.prediction is None else self._draft(requested.prediction),
            prompt_text=self.tokenizer.decode(ids) if submit.return_prompt_text else None,
            shows_prompt_ids=submit.return_prompt_token_ids,
        )

    def _adapter(self, name: str | None) -> int:
        if name is None:
            return 0
        if name not in self._adapters:
            raise InvalidRequest(f"The model was loaded without the adapter {name!r}. Attach it first.", field=Field.MODEL)
        return 1 + self._adapters.index(name)

    def text_of(self, prompt: ChatPrompt) -> str:
        """The prompt's text as the model reads it. Raises InvalidRequest."""
        return self._chat.text(prompt)

    def _reader(self, submit: Submit) -> Callable[[int], bytes]:
        """The bytes of tokens in the answer's text."""
        read = self.tokenizer.token_bytes(skip_special_tokens=submit.params.skip_special_tokens)
        visible = self._forms.visible_ids(submit.prompt)
        if not visible:
            return read
        read_all = self.tokenizer.token_bytes(skip_special_tokens=False)
        return lambda token: read_all(token) if token in visible else read(token)

    def _draft(self, prediction: str) -> Draft:
        """The predicted tokens, at most as many as the answer may have, up to the first that the model does not know."""
        text = prediction[: self._context_length * self.tokenizer.longest_token]
        ids = np.array(self.tokenizer.encode(text, add_special_tokens=False), np.int32)
        unknown = np.flatnonzero(ids >= self._vocab_size)
        return Draft(ids[: unknown[0]] if len(unknown) else ids)

    def tokens(self, prompt: Prompt) -> list[int]:
        """What the model reads, however long, also none. Raises InvalidRequest."""
        return self._read(prompt)[1]

    def _read(self, prompt: Prompt) -> tuple[str, list[int]]:
        """The prompt's text, as far as it has one, and its tokens."""
        field, text = _field(prompt), ""
        match prompt:
            case TokensPrompt(token_ids=ids):
                pass
            case TextPrompt(text=text, add_special_tokens=special):
                ids = self._encode(text, field, special)
            case ChatPrompt():
                text = self._chat.text(prompt)
                ids = self._encode(text, field, False)
        if ids and (min(ids) < 0 or max(ids) >= self._vocab_size):
            raise InvalidRequest(f"A token id in the prompt is outside the vocabulary (0 to {self._vocab_size - 1}).", field=field)
        return text, ids

    def _check_size(self, prompt: Prompt, ids: list[int]) -> None:
        """Checks that a prompt has at least one token and fewer than the context."""
        if not ids:
            raise InvalidRequest("The prompt is empty: it must hold at least one token.", field=_field(prompt))
        if len(ids) >= self._context_length:
            raise self._too_long(f"{len(ids)}", _field(prompt))

    def _encode(self, text: str, field: Field, add_special_tokens: bool) -> list[int]:
        """Refuses megabytes that cannot fit before they are tokenized, which would take seconds and as many hundred megabytes."""
        at_least = len(text) // self.tokenizer.longest_token
        if len(text) > COUNTED_CHARS and at_least >= self._context_length:
            raise self._too_long(f"at least {at_least}", field)
        return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def _too_long(self, count: str, field: Field) -> InvalidRequest:
        return InvalidRequest(
            f"This model's maximum context length is {self._context_length} tokens, but the prompt has {count} tokens. "
            "Shorten the prompt; one token at least must remain for the answer.",
            field=field,
            code="context_length_exceeded",
        )

    def _resolve(self, requested: SamplingParams, prompt_len: int) -> ResolvedParams:
        defaults, room = self._defaults, self._context_length - prompt_len
        _check_ids(Field.LOGIT_BIAS, requested.logit_bias, self._vocab_size)
        _check_ids(Field.STOP_TOKEN_IDS, requested.stop_token_ids, self._vocab_size)
        top_k = _first(requested.top_k, defaults.top_k)
        temperature = _first(requested.temperature, defaults.temperature)
        if not math.isfinite(temperature) or temperature < 0:
            raise InvalidRequest(f"{Field.TEMPERATURE.quoted} must be a number of at least 0.", field=Field.TEMPERATURE)
        resolved = ResolvedParams(
            temperature=temperature if temperature >= GREEDY_BELOW else 0.0,
            top_k=max(0, int(top_k)),
            top_p=_first(requested.top_p, defaults.top_p),
            min_p=_first(requested.min_p, defaults.min_p),
            typical_p=_first(requested.typical_p, 1.0),
            repetition_penalty=_first(requested.repetition_penalty, defaults.repetition_penalty),
            max_tokens=room if requested.max_tokens is None else min(requested.max_tokens, room),
            requested=requested,
        )
        if resolved.max_tokens < 0 or (resolved.max_tokens == 0 and requested.prompt_logprobs is None):
            message = f"{Field.MAX_TOKENS.quoted} must be at least 1, or 0 with {Field.PROMPT_LOGPROBS.quoted}."
            raise InvalidRequest(message, field=Field.MAX_TOKENS)
        return resolved


def _capabilities(can_chat: bool, can_constrain: bool) -> frozenset[Capability]:
    found = {Capability.COMPLETION: True, Capability.CHAT: can_chat, Capability.FORMS: can_constrain}
    return frozenset(capability for capability, is_there in found.items() if is_there)


def _field(prompt: Prompt) -> Field:
    """The part of the request that the prompt comes from."""
    return Field.CONVERSATION if isinstance(prompt, ChatPrompt) else Field.PROMPT


def _first(requested: float | None, default: float) -> float:
    return default if requested is None else requested


def _check_ids(field: Field, ids: object, vocab_size: int) -> None:
    assert isinstance(ids, dict | tuple)
    outside = [i for i in ids if not 0 <= i < vocab_size]
    if outside:
        message = f"{field.quoted} names token {outside[0]}, outside the vocabulary (0 to {vocab_size - 1})."
        raise InvalidRequest(message, field=field)
