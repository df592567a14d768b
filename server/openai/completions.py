"""`POST /v1/completions`, streaming and not: the route, and how answers and events become OpenAI's shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from server.openai.completion_wire import Completion, CompletionChoice, CompletionRequest
from server.openai.identity import Identity
from server.openai.sse import DONE, MARK, ChunkTemplate, event_of
from server.openai.translate import translate_completion
from server.openai.usage_wire import usage_body
from server.request_record import RequestRecord


def completions_router(gateway: Gateway) -> APIRouter:
    router = APIRouter(route_class=JsonRoute, tags=["openai"])

    @router.post(
        "/v1/completions",
        response_model=Completion,
        responses=STREAMS | documented(400, 404, 413, 429, 500, 503),
        summary="Continue texts",
    )
    async def create_completion(body: CompletionRequest, request: Request) -> Response:
        """One choice per prompt. With `stream`, choices come interleaved as server-sent events, then `[DONE]`."""
        asked = translate_completion(body)
        model = gateway.resolve(body.model)
        identity = Identity.new("cmpl", model)
        record = RequestRecord.of(request.scope)
        if body.stream:
            inference = await unless_disconnected(request.receive, gateway.infer(model, asked, record))
            frames = CompletionFrames(identity, inference.prompt_text, with_usage=body.wants_usage)
            return EventStream(inference, frames)
        answers = await unless_disconnected(request.receive, gateway.answer(model, asked, record))
        return Response(completion(identity, answers).model_dump_json(), media_type="application/json")

    return router


def completion(identity: Identity, answers: Sequence[Answer]) -> Completion:
    choices = [
        CompletionChoice(
            index=index,
            text=answer.prompt_text + answer.text,
            finish_reason=answer.finished.reason.value,
            stop_reason=answer.finished.stop,
        )
        for index, answer in enumerate(answers)
    ]
    usage = usage_body(total([answer.finished.usage for answer in answers]))
    return Completion(**asdict(identity), choices=choices, usage=usage)


class CompletionFrames:
    """Renders the events of all choices. prompt_text: of a choice, known with its first event; empty without echo."""

    def __init__(self, identity: Identity, prompt_text: Callable[[int], str], *, with_usage: bool) -> None:
        self._identity = asdict(identity)
        self._prompt_text = prompt_text
        self._with_usage = with_usage
        self._usages: list[Usage] = []
        self._templates: dict[int, ChunkTemplate] = {}

    def opening(self) -> bytes:
        return b""

    def event(self, indexed: Indexed) -> bytes:
        index, event = indexed
        template = self._templates.get(index)
        text = event.text
        if template is None:
            template = self._templates[index] = self._template(index)
            text = self._prompt_text(index) + text
        frame = template.fill(text) if text else b""
        if not isinstance(event, Finished):
            return frame
        self._usages.append(event.usage)
        end = CompletionChoice(index=index, text="", finish_reason=event.reason.value, stop_reason=event.stop)
        return frame + self._chunk([end])

    def closing(self) -> bytes:
        if not self._with_usage:
            return DONE
        return self._chunk([], total(self._usages)) + DONE

    def _template(self, index: int) -> ChunkTemplate:
        chunk = Completion(**self._identity, choices=[CompletionChoice(index=index, text=MARK)])
        return ChunkTemplate(chunk, with_usage=self._with_usage)

    def _chunk(self, choices: list[CompletionChoice], usage: Usage | None = None) -> bytes:
        chunk = Completion(**self._identity, choices=choices, usage=usage_body(usage) if usage else None)
        return event_of(chunk, with_usage=self._with_usage)
