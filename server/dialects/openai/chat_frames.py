"""Streams of chat chunks: events of all choices to bytes. Owns what a choice holds back until there is something to send.

`ChatStyle` says which parts of an answer a client wants, in the newer or the older form.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from runtime.protocol.events import Chunk, Finished, FinishReason, Started, TokenLogprob, Usage
from runtime.text.formats.reader import AnswerParser, ContentDelta, ReasoningDelta, ToolCallArguments, ToolCallBegin
from runtime.text.formats.reader import Delta as PartDelta
from server.dialects.openai.logprobs import chat_logprobs
from server.dialects.openai.rendering import DONE, MARK, ChunkTemplate, Identity, event_of
from server.dialects.openai.wire import chat as wire
from server.dialects.openai.wire.answer_parts import usage_body, usage_so_far
from server.dialects.openai.wire.chat import ChatChunk, ChatChunkChoice, ChatRequest, Delta, FunctionDelta, ToolCallDelta
from server.dialects.openai.wire.sampling import UsageReporting
from server.inference.answer_parts import new_call_id
from server.inference.inference import Indexed, total


@dataclass(frozen=True, slots=True)
class ChatStyle:
    """legacy_calls: calls as `function_call`. usage: of streams."""

    num_choices: int = 1
    with_reasoning: bool = True
    with_logprobs: bool = False
    with_token_ids: bool = False
    legacy_calls: bool = False
    usage: UsageReporting = UsageReporting.NEVER

    @classmethod
    def of(cls, request: ChatRequest) -> ChatStyle:
        return cls(
            num_choices=request.num_choices,
            with_reasoning=request.include_reasoning is not False,
            with_logprobs=bool(request.logprobs),
            with_token_ids=bool(request.return_token_ids),
            legacy_calls=bool(request.functions),
            usage=request.usage_reporting,
        )


def finish_reason(finished: Finished, has_calls: bool, style: ChatStyle) -> wire.FinishReason:
    """`tool_calls` for an answer that ended by its own end token and has calls; an answer that was cut, also by a stop text, keeps
    its reason.
    """
    if finished.reason is FinishReason.STOP and finished.stop is None and has_calls:
        return "function_call" if style.legacy_calls else "tool_calls"
    return finished.reason.value


class Choices(Protocol):
    """What is known of choices that have begun; an Inference."""

    def started(self, choice: int) -> Started: ...

    def parser(self, choice: int) -> AnswerParser | None: ...


class ChatFrames:
    """Each choice begins with its role, and ends with its finish_reason."""

    def __init__(self, identity: Identity, choices: Choices, style: ChatStyle) -> None:
        self._fields = asdict(identity)
        self._choices = choices
        self._style = style
        self._frames: dict[int, _ChoiceFrames] = {}
        self._usages: dict[int, Usage] = {}

    def event(self, indexed: Indexed) -> bytes:
        index, event = indexed
        frames, role = self._frames.get(index), b""
        if frames is None:
            frames, role = self._begin(index)
        if isinstance(event, Finished):
            self._usages[index] = event.usage
        return role + frames.event(event)

    def closing(self) -> bytes:
        if self._style.usage is UsageReporting.NEVER:
            return DONE
        usages = [self._usages[index] for index in sorted(self._usages)]
        chunk = ChatChunk(**self._fields, choices=[], usage=usage_body(total(usages, self._style.num_choices)))
        return event_of(chunk, with_usage=True) + DONE

    def _begin(self, index: int) -> tuple[_ChoiceFrames, bytes]:
        """The prompt's tokens come with the first chunk of all."""
        started = self._choices.started(index)
        is_first = not self._frames
        frames = self._frames[index] = _ChoiceFrames(index, self._fields, started, self._choices.parser(index), self._style)
        role = Delta(role="assistant", content="")
        return frames, frames.chunk(role, prompt_token_ids=started.prompt_token_ids if is_first else None)


class _ChoiceFrames:
    """One choice. Log probabilities and token ids go with the next chunk that has content, or with the last."""

    def __init__(self, index: int, fields: dict[str, Any], started: Started, parser: AnswerParser | None, style: ChatStyle) -> None:
        self._index = index
        self._fields = fields
        self._started = started
        self._parser = parser
        self._style = style
        self._logprobs: list[TokenLogprob] = []
        self._token_ids: list[int] = []
        self._num_tokens = 0
        self._num_calls = 0
        has_details = style.with_logprobs or style.with_token_ids or style.usage is UsageReporting.ALWAYS
        self._content = None if has_details else self._template(Delta(content=MARK))
        self._reasoning = None if has_details or parser is None else self._template(Delta(reasoning_content=MARK))

    def event(self, event: Chunk | Finished) -> bytes:
        if self._parser is None and self._content is not None:
            frame = self._content.fill(event.text) if event.text else b""
        else:
            frame = self._render_event(event)
        return frame + self._end(event) if isinstance(event, Finished) else frame

    def chunk(self, delta: Delta, *, prompt_token_ids: list[int] | None = None, end: Finished | None = None) -> bytes:
        style = self._style
        choice = ChatChunkChoice(
            index=self._index,
            delta=delta,
            logprobs=chat_logprobs(self._logprobs) if self._logprobs else None,
            finish_reason=None if end is None else finish_reason(end, self._num_calls > 0, style),
            stop_reason=None if end is None else end.stop,
            token_ids=self._token_ids if style.with_token_ids and (self._token_ids or end) else None,
        )
        self._logprobs, self._token_ids = [], []
        usage = usage_so_far(self._started, self._num_tokens) if end is None else end.usage
        usage_field = usage_body(usage) if style.usage is UsageReporting.ALWAYS else None
        chunk = ChatChunk(**self._fields, choices=[choice], usage=usage_field, prompt_token_ids=prompt_token_ids)
        return event_of(chunk, with_usage=style.usage is not UsageReporting.NEVER)

    def _render_event(self, event: Chunk | Finished) -> bytes:
        self._logprobs += event.logprobs or ()
        self._token_ids += event.token_ids
        self._num_tokens += len(event.token_ids)
        if self._parser is None:
            parts: list[PartDelta] = [ContentDelta(event.text)] if event.text else []
        else:
            parts = self._parser.feed(event.text) if event.text else []
            parts += self._parser.finish() if isinstance(event, Finished) else []
        return b"".join(map(self._part, parts))

    def _part(self, part: PartDelta) -> bytes:
        match part:
            case ContentDelta(text=text):
                return self._content.fill(text) if self._content else self.chunk(Delta(content=text))
            case ReasoningDelta() if not self._style.with_reasoning:
                return b""
            case ReasoningDelta(text=text):
                return self._reasoning.fill(text) if self._reasoning else self.chunk(Delta(reasoning_content=text))
            case ToolCallBegin(index=index, name=name):
                self._num_calls += 1
                return self._call(index, FunctionDelta(name=name, arguments=""), new_call_id())
            case ToolCallArguments(index=index, text=text):
                return self._call(index, FunctionDelta(arguments=text), None)

    def _call(self, index: int, function: FunctionDelta, id_: str | None) -> bytes:
        """The deprecated `function_call` form has room for one call; its requests allow no more."""
        if self._style.legacy_calls:
            return self.chunk(Delta(function_call=function)) if index == 0 else b""
        call = ToolCallDelta(index=index, id=id_, type="function" if id_ else None, function=function)
        return self.chunk(Delta(tool_calls=[call]))

    def _end(self, finished: Finished) -> bytes:
        return self.chunk(Delta(), end=finished)

    def _template(self, delta: Delta) -> ChunkTemplate:
        chunk = ChatChunk(**self._fields, choices=[ChatChunkChoice(index=self._index, delta=delta)])
        return ChunkTemplate(chunk, with_usage=self._style.usage is not UsageReporting.NEVER)
