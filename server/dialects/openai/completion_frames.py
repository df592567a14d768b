"""Streams of completions: events of all choices to bytes. `CompletionStyle` says which parts a client wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from runtime.protocol.events import Chunk, Finished, Started, TokenLogprob, Usage
from server.dialects.openai.logprobs import LegacyLogprobs
from server.dialects.openai.rendering import DONE, MARK, ChunkTemplate, Identity, event_of
from server.dialects.openai.wire.answer_parts import usage_body, usage_so_far
from server.dialects.openai.wire.completions import Completion, CompletionChoice, CompletionRequest
from server.dialects.openai.wire.sampling import UsageReporting
from server.inference.inference import Indexed, total


@dataclass(frozen=True, slots=True)
class CompletionStyle:
    """num_choices: per prompt, of those generated. with_prompt_logprobs: vLLM's, beside those of an echo. usage: of streams."""

    num_choices: int = 1
    num_generated: int = 1
    with_logprobs: bool = False
    with_prompt_logprobs: bool = False
    with_token_ids: bool = False
    usage: UsageReporting = UsageReporting.NEVER

    @classmethod
    def of(cls, request: CompletionRequest) -> CompletionStyle:
        return cls(
            num_choices=request.n or 1,
            num_generated=request.num_choices,
            with_logprobs=request.logprobs is not None,
            with_prompt_logprobs=request.prompt_logprobs is not None,
            with_token_ids=bool(request.return_token_ids),
            usage=request.usage_reporting,
        )


class CompletionFrames:
    """started: of a choice, known with its first event."""

    def __init__(self, identity: Identity, started: Callable[[int], Started], style: CompletionStyle) -> None:
        self._fields = asdict(identity)
        self._started = started
        self._style = style
        self._frames: dict[int, _ChoiceFrames] = {}
        self._usages: dict[int, Usage] = {}

    def event(self, indexed: Indexed) -> bytes:
        index, event = indexed
        frames, echo = self._frames.get(index), b""
        if frames is None:
            frames = self._frames[index] = _ChoiceFrames(index, self._fields, self._started(index), self._style)
            echo = frames.echo()
        if isinstance(event, Finished):
            self._usages[index] = event.usage
        return echo + frames.event(event)

    def closing(self) -> bytes:
        if self._style.usage is UsageReporting.NEVER:
            return DONE
        usages = [self._usages[index] for index in sorted(self._usages)]
        chunk = Completion(**self._fields, choices=[], usage=usage_body(total(usages, self._style.num_generated)))
        return event_of(chunk, with_usage=True) + DONE


class _ChoiceFrames:
    """One choice. What comes without text goes with the next text, or with the end."""

    def __init__(self, index: int, fields: dict[str, Any], started: Started, style: CompletionStyle) -> None:
        self._index = index
        self._fields = fields
        self._started = started
        self._style = style
        self._legacy = LegacyLogprobs()
        self._logprobs: list[TokenLogprob] = []
        self._token_ids: list[int] = []
        self._num_tokens = 0
        has_details = style.with_logprobs or style.with_token_ids or style.usage is UsageReporting.ALWAYS
        self._template = None if has_details else self._make_template()

    def echo(self) -> bytes:
        """The chunk with the prompt, where one was requested."""
        started = self._started
        if started.prompt_text is None and started.prompt_token_ids is None:
            return b""
        choice = CompletionChoice(
            index=self._index,
            text=started.prompt_text or "",
            logprobs=self._legacy.of_prompt(started) if self._style.with_logprobs and started.prompt_text is not None else None,
            prompt_token_ids=started.prompt_token_ids,
            token_ids=[] if self._style.with_token_ids else None,
        )
        return self._render(choice, usage_so_far(self._started, self._num_tokens))

    def event(self, event: Chunk | Finished) -> bytes:
        if self._template is not None:
            frame = self._template.fill(event.text) if event.text else b""
        else:
            frame = self._render_event(event)
        return frame + self._end(event) if isinstance(event, Finished) else frame

    def _render_event(self, event: Chunk | Finished) -> bytes:
        self._logprobs += event.logprobs or ()
        self._token_ids += event.token_ids
        self._num_tokens += len(event.token_ids)
        return self._render(self._choice(event.text), usage_so_far(self._started, self._num_tokens)) if event.text else b""

    def _end(self, finished: Finished) -> bytes:
        choice = self._choice("")
        ended = choice.model_copy(update={"finish_reason": finished.reason.value, "stop_reason": finished.stop})
        return self._render(ended, finished.usage)

    def _choice(self, text: str) -> CompletionChoice:
        logprobs, token_ids = self._logprobs, self._token_ids
        self._logprobs, self._token_ids = [], []
        return CompletionChoice(
            index=self._index,
            text=text,
            logprobs=self._legacy.of_answer(logprobs) if logprobs else None,
            token_ids=token_ids if self._style.with_token_ids else None,
        )

    def _render(self, choice: CompletionChoice, usage: Usage) -> bytes:
        usage_field = usage_body(usage) if self._style.usage is UsageReporting.ALWAYS else None
        chunk = Completion(**self._fields, choices=[choice], usage=usage_field)
        return event_of(chunk, with_usage=self._style.usage is not UsageReporting.NEVER)

    def _make_template(self) -> ChunkTemplate:
        chunk = Completion(**self._fields, choices=[CompletionChoice(index=self._index, text=MARK)])
        return ChunkTemplate(chunk, with_usage=self._style.usage is not UsageReporting.NEVER)
