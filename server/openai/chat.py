"""`POST /v1/chat/completions`, streaming and not: the route, and how answers and events become OpenAI's shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtime.events import Finished, Usage
from server.disconnection import unless_disconnected
from server.errors import documented
from server.event_stream import STREAMS, EventStream
from server.gateway import Gateway
from server.inference import Answer, Indexed, total
from server.json_route import JsonRoute
from server.openai.chat_wire import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatRequest,
    Delta,
)
from server.openai.identity import Identity
from server.openai.sse import DONE, MARK, ChunkTemplate, event_of
from server.openai.translate import translate_chat
from server.openai.usage_wire import usage_body
from server.request_record import RequestRecord


def chat_router(gateway: Gateway) -> APIRouter:
    router = APIRouter(route_class=JsonRoute, tags=["openai"])

    @router.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses=STREAMS | documented(400, 404, 413, 429, 500, 503),
        summary="Answer a conversation",
    )
    async def create_chat_completion(body: ChatRequest, request: Request) -> Response:
        """With `stream`, the answer comes as server-sent events of `chat.completion.chunk` objects, then `[DONE]`."""
        asked = translate_chat(body)
        model = gateway.resolve(body.model)
        identity = Identity.new("chatcmpl", model)
        record = RequestRecord.of(request.scope)
        if body.stream:
            inference = await unless_disconnected(request.receive, gateway.infer(model, asked, record))
            return EventStream(inference, ChatFrames(identity, with_usage=body.wants_usage))
        answers = await unless_disconnected(request.receive, gateway.answer(model, asked, record))
        return Response(chat_completion(identity, answers).model_dump_json(), media_type="application/json")

    return router


def chat_completion(identity: Identity, answers: Sequence[Answer]) -> ChatCompletion:
    choices = [
        ChatChoice(
            index=index,
            message=AnswerMessage(content=answer.text),
            finish_reason=answer.finished.reason.value,
            stop_reason=answer.finished.stop,
        )
        for index, answer in enumerate(answers)
    ]
    usage = usage_body(total([answer.finished.usage for answer in answers]))
    return ChatCompletion(**asdict(identity), choices=choices, usage=usage)


class ChatFrames:
    """Renders one answer's events. with_usage: `usage` is null in every chunk, and a last chunk has it."""

    def __init__(self, identity: Identity, *, with_usage: bool) -> None:
        self._identity = asdict(identity)
        self._with_usage = with_usage
        self._usages: list[Usage] = []
        choice = ChatChunkChoice(index=0, delta=Delta(content=MARK))
        self._template = ChunkTemplate(ChatChunk(**self._identity, choices=[choice]), with_usage=with_usage)

    def opening(self) -> bytes:
        return self._chunk([ChatChunkChoice(index=0, delta=Delta(role="assistant", content=""))])

    def event(self, indexed: Indexed) -> bytes:
        event = indexed.event
        text = self._template.fill(event.text) if event.text else b""
        if not isinstance(event, Finished):
            return text
        self._usages.append(event.usage)
        end = ChatChunkChoice(index=0, delta=Delta(), finish_reason=event.reason.value, stop_reason=event.stop)
        return text + self._chunk([end])

    def closing(self) -> bytes:
        if not self._with_usage:
            return DONE
        return self._chunk([], total(self._usages)) + DONE

    def _chunk(self, choices: list[ChatChunkChoice], usage: Usage | None = None) -> bytes:
        chunk = ChatChunk(**self._identity, choices=choices, usage=usage_body(usage) if usage else None)
        return event_of(chunk, with_usage=self._with_usage)
