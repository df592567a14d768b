"""The wire shape of token counts, and how the engine's counts become it."""

from __future__ import annotations

from pydantic import BaseModel

from runtime.events import Usage


class PromptTokensDetails(BaseModel):
    """cached_tokens: those of the prompt whose KV was reused."""

    cached_tokens: int


class UsageBody(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


def usage_body(usage: Usage) -> UsageBody:
    return UsageBody(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
    )
