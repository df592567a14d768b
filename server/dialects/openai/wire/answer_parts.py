"""The wire shapes that chat and completions share in answers: token counts and log probabilities. Shapes only."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, Field

from runtime.protocol.events import Started, Usage

_T = TypeVar("_T")
OrAbsent = Annotated[_T | None, Field(exclude_if=lambda value: value is None)]


class TopLogprob(BaseModel):
    token: str = Field(description="Text of the token; of part of a character, a replacement character.")
    logprob: float
    bytes: list[int] = Field(description="The token's own bytes.")


class ChatTokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    content: list[ChatTokenLogprob]
    refusal: None = None


class CompletionLogprobs(BaseModel):
    """A list entry per token. text_offset: characters of the choice's text before the token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class PromptLogprob(BaseModel):
    """rank: 1 for the likeliest token of all; null for one that is not among the requested alternatives."""

    logprob: float
    rank: int | None
    decoded_token: str


PromptLogprobs = list[dict[int, PromptLogprob] | None]


class PromptTokensDetails(BaseModel):
    cached_tokens: int = Field(description="Those of the prompt whose KV was reused.")
    audio_tokens: int = 0


class CompletionTokensDetails(BaseModel):
    reasoning_tokens: int = Field(description="Those of the thought.")
    accepted_prediction_tokens: int = Field(description="Those of the prediction that the answer repeats.")
    rejected_prediction_tokens: int = Field(description="Those that were tried in vain; they are not among completion_tokens.")
    audio_tokens: int = 0


class UsageBody(BaseModel):
    """The usage of all choices; a prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


def usage_body(usage: Usage) -> UsageBody:
    return UsageBody(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=usage.reasoning_tokens,
            accepted_prediction_tokens=usage.accepted_prediction_tokens,
            rejected_prediction_tokens=usage.rejected_prediction_tokens,
        ),
    )


def usage_so_far(started: Started, num_tokens: int) -> Usage:
    """Usage of one choice that has not ended. num_tokens: of its answer, as far as they were sent."""
    return Usage(prompt_tokens=started.prompt_tokens, completion_tokens=num_tokens, cached_tokens=started.cached_tokens)
