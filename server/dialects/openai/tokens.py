"""`POST /tokenize`, `/detokenize`, `/v1/chat/completions/input_tokens`: prompts as tokens, without running a model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from runtime.pool.lease import Lease
from runtime.protocol.capabilities import needs_of
from runtime.protocol.errors import Field, NotReady
from runtime.protocol.messages import Tokenized
from runtime.protocol.request import ChatPrompt, Prompt, TextPrompt
from server.dialects.openai.errors import FIELD_NAMES, FieldNames, OpenAIErrors
from server.dialects.openai.field_names import names_in
from server.dialects.openai.translate import translate_chat
from server.dialects.openai.wire.chat import ChatRequest
from server.dialects.openai.wire.errors import documented
from server.dialects.openai.wire.tokens import (
    Detokenization,
    DetokenizeRequest,
    InputTokens,
    Piece,
    Pieces,
    Tokenization,
    TokenizeChat,
    TokenizeContent,
    TokenizeRequest,
    TokenizeText,
)
from server.http.access import requires
from server.http.disconnection import unless_disconnected
from server.http.json_route import JsonRoute
from server.http.request_record import RequestRecord
from server.inference.gateway import Gateway
from server.principal import AccessScope

T = TypeVar("T")
_ANSWERS = documented(400, 404, 413, 500, 503)


def tokens_router(gateway: Gateway) -> APIRouter:
    router = APIRouter(route_class=JsonRoute, tags=["tokens"])

    async def inquire(
        body: TokenizeText | TokenizeContent | ChatRequest | DetokenizeRequest,
        request: Request,
        question: Callable[[Lease], Awaitable[T]],
        prompt: Prompt | None = None,
    ) -> T:
        """The answer of the model that the body names. prompt: that it is about; a text is no need, as any model has tokens.

        Raises RuntimeFailure, ModelNotFound, ClientGone.
        """
        record = RequestRecord.of(request.scope)
        record.error_writer = OpenAIErrors(_names(body))
        found = await gateway.resolve(body.model, record.principal)
        record.model, record.resolution = found.label, found.reason
        needs = needs_of(prompt) if isinstance(prompt, ChatPrompt) else ()

        async def answer() -> T:
            with await gateway.acquire(found.model, body.keep_alive_s, found.principal, needs) as lease:
                return await _within(gateway.settings.request_timeout_s, question(lease))

        return await unless_disconnected(request.receive, answer())

    @router.post(
        "/tokenize", response_model=Tokenization | Pieces, responses=_ANSWERS, summary="Tokens of a text or a conversation"
    )
    @requires(AccessScope.INFERENCE, changes_state=False)
    async def tokenize(body: TokenizeRequest, request: Request) -> Response:
        """Also works for text that is too long for the model, up to a million characters."""
        prompt = _prompt(body)
        reply = await inquire(body, request, lambda lease: lease.tokenize(prompt), prompt)
        answer: BaseModel
        if isinstance(body, TokenizeContent):
            answer = _pieces(reply) if body.with_pieces else Pieces(tokens=reply.token_ids)
        else:
            answer = _tokenization(reply, with_texts=bool(body.return_token_strs))
        return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")

    @router.post("/detokenize", responses=_ANSWERS, summary="The text of tokens")
    @requires(AccessScope.INFERENCE, changes_state=False)
    async def detokenize(body: DetokenizeRequest, request: Request) -> Detokenization:
        reply = await inquire(body, request, lambda lease: lease.detokenize(body.tokens))
        return Detokenization(prompt=reply.text)

    @router.post("/v1/chat/completions/input_tokens", responses=_ANSWERS, summary="Count the tokens of a conversation")
    @requires(AccessScope.INFERENCE, changes_state=False)
    async def count_input_tokens(body: ChatRequest, request: Request) -> InputTokens:
        """Takes what /v1/chat/completions takes, and answers what its `usage.prompt_tokens` would be."""
        prompt = translate_chat(body).prompts[0]
        reply = await inquire(body, request, lambda lease: lease.tokenize(prompt), prompt)
        return InputTokens(input_tokens=len(reply.token_ids))

    return router


def _prompt(body: TokenizeText | TokenizeContent | TokenizeChat) -> Prompt:
    """Raises InvalidParam."""
    match body:
        case TokenizeText():
            return TextPrompt(text=body.prompt, add_special_tokens=body.add_special_tokens is not False)
        case TokenizeContent():
            return TextPrompt(text=body.content, add_special_tokens=bool(body.add_special))
        case _:
            return translate_chat(body).prompts[0]


def _names(body: TokenizeText | TokenizeContent | ChatRequest | DetokenizeRequest) -> FieldNames:
    """What the parts of a request are called in errors."""
    if isinstance(body, ChatRequest):
        return names_in(body)
    return {**FIELD_NAMES, Field.PROMPT: "content"} if isinstance(body, TokenizeContent) else FIELD_NAMES


def _tokenization(reply: Tokenized, *, with_texts: bool) -> Tokenization:
    texts = [token.decode(errors="replace") for token in reply.tokens] if with_texts else None
    return Tokenization(count=len(reply.token_ids), max_model_len=reply.context_length, tokens=reply.token_ids, token_strs=texts)


def _pieces(reply: Tokenized) -> Pieces:
    return Pieces(
        tokens=[Piece(id=number, piece=_text(token)) for number, token in zip(reply.token_ids, reply.tokens, strict=True)]
    )


def _text(token: bytes) -> str | list[int]:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return list(token)


async def _within(seconds: float, answer: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        raise NotReady(
            f"The tokenizer has not answered within {seconds:g} s. Retry, or send less text.",
            code="deadline_exceeded",
            retry_after_s=1.0,
        ) from None
