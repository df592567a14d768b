"""The wire shapes of answers of `/v1/chat/completions`: whole, and in chunks. Shapes only."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from server.dialects.openai.wire.answer_parts import ChatLogprobs, OrAbsent, PromptLogprobs, UsageBody

FinishReason = Literal["stop", "length", "tool_calls", "function_call", "abort"]


class FunctionCall(BaseModel):
    name: str
    arguments: str = Field(description="JSON text of an object; cut when the answer was.")


class ToolCallBody(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class AnswerMessage(BaseModel):
    """content: null when the model only called tools."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: OrAbsent[str] = None
    tool_calls: OrAbsent[list[ToolCallBody]] = None
    function_call: OrAbsent[FunctionCall] = None


class ChatChoice(BaseModel):
    """stop_reason: the stop text or token id that ended the answer, if one did (vLLM)."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason
    stop_reason: str | int | None = None
    token_ids: OrAbsent[list[int]] = None


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    service_tier: OrAbsent[str] = None
    choices: list[ChatChoice]
    usage: UsageBody
    prompt_logprobs: OrAbsent[PromptLogprobs] = None
    prompt_token_ids: OrAbsent[list[int]] = None


class FunctionDelta(BaseModel):
    name: OrAbsent[str] = None
    arguments: OrAbsent[str] = None


class ToolCallDelta(BaseModel):
    """The first of a call has its id, type and name; the others more of the arguments."""

    index: int
    id: OrAbsent[str] = None
    type: OrAbsent[Literal["function"]] = None
    function: FunctionDelta


class Delta(BaseModel):
    """What is new. Absent, not null, where nothing is."""

    role: OrAbsent[Literal["assistant"]] = None
    content: OrAbsent[str] = None
    reasoning_content: OrAbsent[str] = None
    tool_calls: OrAbsent[list[ToolCallDelta]] = None
    function_call: OrAbsent[FunctionDelta] = None


class ChatChunkChoice(BaseModel):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    token_ids: OrAbsent[list[int]] = None


class ChatChunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    service_tier: OrAbsent[str] = None
    choices: list[ChatChunkChoice]
    usage: UsageBody | None = None
    prompt_token_ids: OrAbsent[list[int]] = None
