"""`POST /v1/completions`, streaming and not: the route, and how whole answers become OpenAI's shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.dialects.openai.completion_frames import CompletionFrames, CompletionStyle
from server.dialects.openai.errors import OpenAIErrors
from server.dialects.openai.field_names import names_in
from server.dialects.openai.logprobs import LegacyLogprobs, prompt_logprobs
from server.dialects.openai.near_misses import warnings_of
from server.dialects.openai.rendering import Identity
from server.dialects.openai.translate import translate_completion
from server.dialects.openai.wire.answer_parts import usage_body
from server.dialects.openai.wire.completions import Completion, CompletionChoice, CompletionRequest
from server.dialects.openai.wire.errors import documented
from server.http.access import requires
from server.http.disconnection import unless_disconnected
from server.http.event_stream import STREAMS, EventStream
from server.http.json_route import JsonRoute
from server.http.request_record import RequestRecord
from server.inference.gateway import Gateway
from server.inference.inference import Answer, total
from server.principal import AccessScope


def completions_router(gateway: Gateway) -> APIRouter:
    router = APIRouter(route_class=JsonRoute, tags=["openai"])

    @router.post(
        "/v1/completions",
        response_model=Completion,
        responses=STREAMS | documented(400, 404, 413, 429, 500, 503),
        summary="Continue texts",
    )
    @requires(AccessScope.INFERENCE, changes_state=False)
    async def create_completion(body: CompletionRequest, request: Request) -> Response:
        """`n` choices per prompt. With `stream`, choices come interleaved as server-sent events, then `[DONE]`."""
        record = RequestRecord.of(request.scope)
        record.error_writer = OpenAIErrors(names_in(body))
        inference_request, style = translate_completion(body), CompletionStyle.of(body)
        found = await gateway.resolve(body.model, record.principal)
        identity = Identity.new("cmpl", found, body.service_tier)
        record.warnings += warnings_of(body)
        if body.stream:
            inference = await unless_disconnected(request.receive, gateway.infer(found, inference_request, record))
            return EventStream(inference, CompletionFrames(identity, inference.started, style))
        answers = await unless_disconnected(request.receive, gateway.answer(found, inference_request, record))
        return Response(completion(identity, answers, style).model_dump_json(), media_type="application/json")

    return router


def completion(identity: Identity, answers: Sequence[Answer], style: CompletionStyle) -> Completion:
    """answers: all that were generated, prompt by prompt. Each prompt's likeliest are returned; usage counts all of them."""
    of_prompts = [answers[i : i + style.num_generated] for i in range(0, len(answers), style.num_generated)]
    chosen = [answer for of_prompt in of_prompts for answer in best(of_prompt, style.num_choices)]
    return Completion(
        **asdict(identity),
        choices=[_choice(index, answer, style) for index, answer in enumerate(chosen)],
        usage=usage_body(total([answer.finished.usage for answer in answers], style.num_generated)),
    )


def best(answers: Sequence[Answer], num_choices: int) -> Sequence[Answer]:
    """The answers with the highest log probability per token, best first; all of them in their order if there is no choice."""
    if num_choices >= len(answers):
        return answers
    return sorted(answers, key=_mean_logprob, reverse=True)[:num_choices]


def _mean_logprob(answer: Answer) -> float:
    return (answer.finished.cumulative_logprob or 0.0) / max(1, len(answer.logprobs or ()))


def _choice(index: int, answer: Answer, style: CompletionStyle) -> CompletionChoice:
    started, finished = answer.started, answer.finished
    wants_prompt = style.with_prompt_logprobs and started.prompt_logprobs is not None
    return CompletionChoice(
        index=index,
        text=answer.prompt_text + answer.text,
        logprobs=LegacyLogprobs().of_choice(started, answer.logprobs or []) if style.with_logprobs else None,
        finish_reason=finished.reason.value,
        stop_reason=finished.stop,
        prompt_logprobs=prompt_logprobs(started.prompt_logprobs or []) if wants_prompt else None,
        prompt_token_ids=started.prompt_token_ids,
        token_ids=answer.token_ids if style.with_token_ids else None,
    )
