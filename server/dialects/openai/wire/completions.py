"""The wire shapes of `/v1/completions`: request, response (a chunk has the same shape). Shapes and ranges only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema

from server.dialects.openai.wire.answer_parts import CompletionLogprobs, OrAbsent, PromptLogprobs, UsageBody
from server.dialects.openai.wire.sampling import MAX_CHOICES, MAX_LOGPROBS, Flag, SamplingFields

Prompts = list[str] | list[list[int]]
MAX_PROMPTS = 4096


def _prompts(value: object) -> Prompts:
    """A text, texts, token ids, or lists of token ids: always as a list of prompts."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if len(value) > MAX_PROMPTS and not isinstance(value[0], int):
            raise ValueError(f"has {len(value)} prompts; at most {MAX_PROMPTS} are possible")
        if all(isinstance(each, str) for each in value):
            return value
        if _is_token_ids(value):
            return [value]
        if all(isinstance(each, list) and each and _is_token_ids(each) for each in value):
            return value
    raise ValueError("must be a text, a list of texts, a list of token ids, or a list of lists of token ids; none empty")


def _is_token_ids(value: list[object]) -> bool:
    return all(type(each) is int and 0 <= each < 2**31 for each in value)


_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31}, "minItems": 1}
_PROMPT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        _IDS,
        {"type": "array", "items": _IDS, "minItems": 1},
    ]
}


class CompletionRequest(SamplingFields):
    """OpenAI's request, with vLLM's extra fields."""

    prompt: Annotated[Prompts, PlainValidator(_prompts), WithJsonSchema(_PROMPT_SCHEMA)] = Field(description="What to continue.")
    max_tokens: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Most tokens of an answer, 16 by default; 0, with echo or prompt_logprobs: none."
    )
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES, description="So many are generated, of which the n likeliest answer.")
    logprobs: int | None = Field(
        None, ge=0, le=MAX_LOGPROBS, description="Log probabilities of each token, with so many alternatives."
    )
    echo: Flag = Field(None, description="Begin each answer with its prompt; with logprobs, include the prompt's too.")
    add_special_tokens: Flag = Field(None, description="Whether texts get the tokenizer's special tokens; true by default.")

    @property
    def num_choices(self) -> int:
        """Per prompt, as generated."""
        return self.best_of or self.n or 1


class CompletionChoice(BaseModel):
    """stop_reason: the stop text or token id that ended the answer, if one did (vLLM)."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length", "abort"] | None = None
    stop_reason: str | int | None = None
    prompt_logprobs: OrAbsent[PromptLogprobs] = None
    prompt_token_ids: OrAbsent[list[int]] = None
    token_ids: OrAbsent[list[int]] = None


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    service_tier: OrAbsent[str] = None
    choices: list[CompletionChoice]
    usage: UsageBody | None = None
