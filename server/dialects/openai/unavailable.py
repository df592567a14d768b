"""Operations of OpenAI's API that this server does not do: each is answered 501 with the reason, its body unread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter

from server.dialects.openai.wire.errors import ErrorEnvelope, documented
from server.http.access import GuardedRoute, requires
from server.http.errors import NotImplementedHere
from server.principal import AccessScope

_SERVES = "slmops serves language models that read and write text"
_IMAGES = f"Images are neither made nor changed here: {_SERVES}. Use a server of image models, or have a chat model write SVG."
_AUDIO = f"Audio is not supported: {_SERVES}."
_REASONS = {
    "/v1/moderations": f"Moderation is not done here: {_SERVES}, and none that was trained to classify. "
    "Use a chat model with a response_format whose schema lists your categories.",
    "/v1/images/generations": _IMAGES,
    "/v1/images/edits": _IMAGES,
    "/v1/images/variations": _IMAGES,
    "/v1/audio/speech": f"{_AUDIO} Pass the answer of /v1/chat/completions to a text-to-speech program.",
    "/v1/audio/transcriptions": f"{_AUDIO} Transcribe with a speech-to-text program, and send its text to /v1/chat/completions.",
    "/v1/audio/translations": f"{_AUDIO} Transcribe with a speech-to-text program, and translate with /v1/chat/completions.",
    "/v1/embeddings": "Embeddings are not computed here yet. Use a server of embedding models beside this one.",
    "/v1/responses": "The Responses API is not offered here yet. Send the conversation to /v1/chat/completions.",
    "/v1/responses/input_tokens": "The Responses API is not offered here yet. Count tokens with /v1/chat/completions/input_tokens.",
}


def unavailable_router() -> APIRouter:
    router = APIRouter(tags=["not implemented"], route_class=GuardedRoute)
    for path, reason in _REASONS.items():
        router.add_api_route(
            path,
            _refusing(reason),
            methods=["POST"],
            status_code=501,
            response_model=ErrorEnvelope,
            response_description="Always.",
            responses=documented(413),
            summary="Not implemented",
            description=reason,
            operation_id=f"not_implemented{path.replace('/', '_')}",
        )
    return router


def _refusing(reason: str) -> Callable[[], Awaitable[None]]:
    @requires(AccessScope.INFERENCE, changes_state=False)
    async def refuse() -> None:
        raise NotImplementedHere(reason)

    return refuse
