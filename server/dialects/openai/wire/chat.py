"""The wire shapes of `/v1/chat/completions`: the request, and answers whole and in chunks. Shapes and ranges only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from server.dialects.openai.wire.answer_parts import ChatLogprobs, OrAbsent, PromptLogprobs, UsageBody
from server.dialects.openai.wire.messages import Messages
from server.dialects.openai.wire.sampling import MAX_LOGPROBS, Flag, SamplingFields
from server.dialects.openai.wire.tools import ToolFields
from server.http.body_errors import at_most

MetadataKey = Annotated[str, Field(max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], at_most(16), Field(max_length=16)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ChatRequest(ToolFields, SamplingFields):
    """OpenAI's request, with vLLM's extra fields."""

    messages: Messages
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1, description="Wins over max_tokens.")
    logprobs: Flag = Field(None, description="Answer the log probability of each token.")
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS, description="With logprobs: so many alternatives of each.")
    reasoning_effort: Effort | None = Field(None, description="Of models that reason; none: no thought.")
    include_reasoning: Flag = Field(None, description="Answer the text of the thought; true by default.")
    metadata: Metadata | None = Field(None, description="Accepted, without effect.")
    safety_identifier: str | None = Field(None, description="Accepted, without effect.")
    prompt_cache_key: str | None = Field(None, description="Accepted, without effect: equal beginnings are always reused.")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="Variables for the chat template.")
    add_generation_prompt: Flag = Field(None, description="End the prompt with the beginning of an answer; true by default.")
    continue_final_message: Flag = Field(None, description="Go on with the last message instead of answering it.")


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
