"""The wire shapes of `/v1/chat/completions`: request, response, chunk. Shapes and ranges only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from server.openai.refusals import MESSAGE, explain, find_unsupported
from server.openai.sampling_wire import Flag, SamplingFields
from server.openai.usage_wire import UsageBody

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def _role(value: object) -> object:
    if isinstance(value, str) and value in _ROLES:
        return _ROLES[value]
    if value in ("tool", "function"):
        raise PydanticCustomError("unsupported", "this role asks for tool calling, which this server does not support")
    raise ValueError(f"must be one of {', '.join(_ROLES)}")


def _text(value: object) -> object:
    """A text, or parts of type text joined line by line."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("must be a text or a list of content parts")
    return "\n".join(_part(index, part) for index, part in enumerate(value))


def _part(index: int, part: object) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text" and isinstance(kind, str):
        raise PydanticCustomError(
            "unsupported", "part {index} is not of type text; this server supports text only", {"index": index}
        )
    text = part.get("text") if isinstance(part, dict) else None
    if kind is None or not isinstance(text, str):
        raise ValueError(f'part {index} must look like {{"type": "text", "text": "..."}}')
    return text


_CONTENT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                "required": ["type", "text"],
            },
        },
        {"type": "null"},
    ]
}
_ROLE_SCHEMA = {"type": "string", "enum": list(_ROLES)}


class Message(BaseModel):
    """One turn. `developer` means `system`."""

    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)

    role: Annotated[str, BeforeValidator(_role), WithJsonSchema(_ROLE_SCHEMA)]
    content: Annotated[str | None, BeforeValidator(_text), WithJsonSchema(_CONTENT_SCHEMA)] = None
    name: str | None = None
    reasoning_content: str | None = None

    @model_validator(mode="after")
    def _sound(self) -> Message:
        row = find_unsupported(self.model_extra or {}, MESSAGE)
        if row is not None:
            raise PydanticCustomError("unsupported", "{why}", {"why": explain(row, row.field).rstrip(".")})
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message of the role {self.role} must have content")
        return self


class ChatRequest(SamplingFields):
    """OpenAI's request, with vLLM's extra fields."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1, description="Wins over max_tokens.")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="Variables for the chat template.")
    add_generation_prompt: Flag = None
    continue_final_message: Flag = None


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """stop_reason: the stop text or token id that ended the answer, if one did (vLLM)."""

    index: int
    message: AnswerMessage
    logprobs: None = None
    finish_reason: str
    stop_reason: str | int | None = None


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: UsageBody


class Delta(BaseModel):
    """What is new. Absent, not null, where nothing is."""

    role: Literal["assistant"] | None = None
    content: str | None = None

    @model_serializer(mode="wrap")
    def _without_nulls(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class ChatChunkChoice(BaseModel):
    index: int
    delta: Delta
    logprobs: None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class ChatChunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: UsageBody | None = None
