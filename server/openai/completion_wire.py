"""The wire shapes of `/v1/completions`: request, response (a chunk has the same shape). Shapes and ranges only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema

from server.openai.sampling_wire import Flag, SamplingFields
from server.openai.usage_wire import UsageBody

Prompts = list[str] | list[list[int]]


def _prompts(value: object) -> Prompts:
    """A text, texts, token ids, or lists of token ids: always as a list of prompts."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(each, str) for each in value):
            return value
        if _is_token_ids(value):
            return [value]
        if all(isinstance(each, list) and each and _is_token_ids(each) for each in value):
            return value
    raise ValueError("must be a text, a list of texts, a list of token ids, or a list of lists of token ids; none empty")


def _is_token_ids(value: list[object]) -> bool:
    return all(type(each) is int and 0 <= each < 2**31 for each in value)


_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_PROMPT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        _IDS,
        {"type": "array", "items": _IDS},
    ]
}


class CompletionRequest(SamplingFields):
    """OpenAI's request, with vLLM's extra fields."""

    prompt: Annotated[Prompts, PlainValidator(_prompts), WithJsonSchema(_PROMPT_SCHEMA)]
    echo: Flag = Field(None, description="Begin each answer with its prompt.")
    add_special_tokens: Flag = Field(None, description="Whether texts get the tokenizer's special tokens; true by default.")


class CompletionChoice(BaseModel):
    """stop_reason: the stop text or token id that ended the answer, if one did (vLLM)."""

    index: int
    text: str
    logprobs: None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: UsageBody | None = None
