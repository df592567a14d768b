"""`POST /v1/chat/completions`, streaming and not: the route, and how whole answers become OpenAI's shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.dialects.openai.chat_frames import ChatFrames, ChatStyle, finish_reason
from server.dialects.openai.errors import OpenAIErrors
from server.dialects.openai.field_names import names_in
from server.dialects.openai.logprobs import chat_logprobs, prompt_logprobs
from server.dialects.openai.near_misses import warnings_of
from server.dialects.openai.rendering import Identity
from server.dialects.openai.translate import translate_chat
from server.dialects.openai.wire.answer_parts import usage_body
from server.dialects.openai.wire.chat import AnswerMessage, ChatChoice, ChatCompletion, ChatRequest, FunctionCall, ToolCallBody
from server.dialects.openai.wire.errors import documented
from server.http.access import requires
from server.http.disconnection import unless_disconnected
from server.http.event_stream import STREAMS, EventStream
from server.http.json_route import JsonRoute
from server.http.request_record import RequestRecord
from server.inference.answer_parts import ToolCall
from server.inference.gateway import Gateway
from server.inference.inference import Answer, total
from server.principal import AccessScope


def chat_router(gateway: Gateway) -> APIRouter:
    router = APIRouter(route_class=JsonRoute, tags=["openai"])

    @router.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses=STREAMS | documented(400, 404, 413, 429, 500, 503),
        summary="Answer a conversation",
    )
    @requires(AccessScope.INFERENCE, changes_state=False)
    async def create_chat_completion(body: ChatRequest, request: Request) -> Response:
        """With `stream`, the answer comes as server-sent events of `chat.completion.chunk` objects, then `[DONE]`."""
        record = RequestRecord.of(request.scope)
        record.error_writer = OpenAIErrors(names_in(body))
        inference_request, style = translate_chat(body), ChatStyle.of(body)
        found = await gateway.resolve(body.model, record.principal)
        identity = Identity.new("chatcmpl", found, body.service_tier)
        record.warnings += warnings_of(body)
        if body.stream:
            inference = await unless_disconnected(request.receive, gateway.infer(found, inference_request, record))
            return EventStream(inference, ChatFrames(identity, inference, style))
        answers = await unless_disconnected(request.receive, gateway.answer(found, inference_request, record))
        return Response(chat_completion(identity, answers, style).model_dump_json(), media_type="application/json")

    return router


def chat_completion(identity: Identity, answers: Sequence[Answer], style: ChatStyle) -> ChatCompletion:
    """All answers are to one prompt."""
    started = answers[0].started
    return ChatCompletion(
        **asdict(identity),
        choices=[_choice(index, answer, style) for index, answer in enumerate(answers)],
        usage=usage_body(total([answer.finished.usage for answer in answers], len(answers))),
        prompt_logprobs=None if started.prompt_logprobs is None else prompt_logprobs(started.prompt_logprobs),
        prompt_token_ids=started.prompt_token_ids,
    )


def _choice(index: int, answer: Answer, style: ChatStyle) -> ChatChoice:
    return ChatChoice(
        index=index,
        message=_message(answer, style),
        logprobs=None if answer.logprobs is None else chat_logprobs(answer.logprobs),
        finish_reason=finish_reason(answer.finished, bool(answer.parts.calls), style),
        stop_reason=answer.finished.stop,
        token_ids=answer.token_ids if style.with_token_ids else None,
    )


def _message(answer: Answer, style: ChatStyle) -> AnswerMessage:
    parts = answer.parts
    content = None if parts.calls and not parts.content else parts.content
    reasoning = parts.reasoning or None if style.with_reasoning else None
    if style.legacy_calls:
        return AnswerMessage(content=content, reasoning_content=reasoning, function_call=_first_function(parts.calls))
    calls = [ToolCallBody(id=call.id, function=_function(call)) for call in parts.calls]
    return AnswerMessage(content=content, reasoning_content=reasoning, tool_calls=calls or None)


def _first_function(calls: Sequence[ToolCall]) -> FunctionCall | None:
    """The deprecated `function_call` form has room for one call; its requests allow no more."""
    return _function(calls[0]) if calls else None


def _function(call: ToolCall) -> FunctionCall:
    return FunctionCall(name=call.name, arguments=call.arguments)
