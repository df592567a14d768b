"""The wire shapes of a conversation's messages: roles, content parts, calls and their results. Shapes only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from server.dialects.openai.refusals import MESSAGE, explain, find_unsupported
from server.dialects.openai.wire.structured_output import NAME, check_together, read_json_text
from server.dialects.openai.wire.tools import FunctionType
from server.http.body_errors import FAIL_FAST, at_most

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_MESSAGES = 4096
MAX_PARTS = 4096
MAX_CALLS = 1024
_OTHER_PARTS = ("image_url", "input_audio", "file", "video_url", "audio_url", "image", "audio", "video")
_CONFIG = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)


def _role(value: object) -> object:
    if value not in ROLES:
        raise ValueError(f"must be one of {', '.join(ROLES)}")
    return value


def _parts(value: object) -> object:
    """A text as one part."""
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if value is not None and not isinstance(value, list):
        raise ValueError("must be a text or a list of content parts")
    return value


def _part_type(value: object) -> object:
    if value in _OTHER_PARTS:
        why = f"parts of the type {value} are not supported: this model reads text only. Send parts of the type text"
        raise PydanticCustomError("unsupported", "{why}", {"why": why})
    if value not in ("text", "refusal"):
        raise ValueError("must be text, or refusal in a message of the assistant")
    return value


class ContentPart(BaseModel):
    model_config = _CONFIG

    type: Annotated[str, BeforeValidator(_part_type), WithJsonSchema({"type": "string", "enum": ["text", "refusal"]})]
    text: str | None = Field(None, description="Of the type text.")
    refusal: str | None = Field(None, description="Of the type refusal.")

    @model_validator(mode="after")
    def _has_its_text(self) -> ContentPart:
        if getattr(self, self.type) is None:
            raise ValueError(f"a part of the type {self.type} needs a field {self.type}, a text")
        return self

    @property
    def content_text(self) -> str:
        return (self.text if self.type == "text" else self.refusal) or ""


_PART_SCHEMA = {
    "type": "object",
    "properties": {"type": {"type": "string", "const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
_CONTENT_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART_SCHEMA}, {"type": "null"}]}
Parts = Annotated[list[ContentPart], FAIL_FAST]
Content = Annotated[Parts | None, BeforeValidator(_parts), at_most(MAX_PARTS), WithJsonSchema(_CONTENT_SCHEMA)]


def _arguments(value: object) -> object:
    """The object that the JSON text encodes; an empty text encodes an empty object."""
    if isinstance(value, str):
        try:
            value = read_json_text(value) if value.strip() else {}
        except ValueError as error:
            raise ValueError(f"must be the JSON text of an object, but {error}; send what the model answered") from None
    if not isinstance(value, dict):
        raise ValueError("must be the JSON text of an object")
    return value


Arguments = Annotated[dict[str, Any], BeforeValidator(_arguments), WithJsonSchema({"type": "string"})]


class CalledFunction(BaseModel):
    model_config = _CONFIG

    name: str = Field(pattern=NAME, description="Which function was called.")
    arguments: Arguments = Field(description="JSON text of an object.")


class MessageToolCall(BaseModel):
    model_config = _CONFIG

    id: str = Field(min_length=1, description="What the result refers to.")
    type: FunctionType = Field("function", description="Always function.")
    function: CalledFunction = Field(description="What was called.")


Calls = Annotated[list[MessageToolCall], FAIL_FAST, at_most(MAX_CALLS), Field(max_length=MAX_CALLS)]


class Message(BaseModel):
    """One turn. `developer` means `system`; `function` is the older form of `tool`."""

    model_config = _CONFIG

    role: Annotated[str, BeforeValidator(_role), WithJsonSchema({"type": "string", "enum": list(ROLES)})] = Field(
        description="Who speaks."
    )
    content: Content = Field(None, description="A text, or parts of the type text.")
    name: str | None = Field(None, description="Who speaks; of a function's result, which function.")
    reasoning_content: str | None = Field(None, description="What the assistant thought.")
    reasoning: str | None = Field(None, description="Another name of reasoning_content.")
    refusal: str | None = Field(None, description="The assistant's refusal, in place of an answer.")
    tool_calls: Calls | None = Field(None, description="What the assistant called.")
    function_call: CalledFunction | None = Field(None, description="Older form of tool_calls.")
    tool_call_id: str | None = Field(None, description="Of a tool's result: the call that it answers.")

    @model_validator(mode="after")
    def _sound(self) -> Message:
        row = find_unsupported(self.model_extra or {}, MESSAGE)
        if row is not None:
            raise PydanticCustomError("unsupported", "{why}", {"why": explain(row, row.field).rstrip(".")})
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message of the role {self.role} must have content")
        if (self.tool_calls or self.function_call) and self.role != "assistant":
            raise ValueError(f"a message of the role {self.role} calls nothing: only the assistant has tool_calls")
        if self.role != "assistant" and any(part.type == "refusal" for part in self.content or ()):
            raise ValueError(f"a message of the role {self.role} has no part of the type refusal: only the assistant has")
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a message of the role tool must have a tool_call_id, the id of the call that it answers")
        if self.role == "function" and not self.name:
            raise ValueError("a message of the role function must have the name of that function")
        return self

    @property
    def text(self) -> str:
        """Parts line by line."""
        if self.content is None:
            return self.refusal or ""
        return "\n".join(part.content_text for part in self.content)


def _within_limits(messages: object) -> object:
    """Checks the limits of all messages together, before each is validated."""
    num_parts = sum(len(_list(message.get("content"))) for message in _list(messages) if isinstance(message, dict))
    if num_parts > MAX_PARTS:
        raise ValueError(f"has {num_parts} content parts; at most {MAX_PARTS} are possible")
    check_together(_arguments_in(messages))
    return messages


def _arguments_in(messages: object) -> Iterator[str]:
    """The arguments of all calls of a conversation whose shape has not been checked."""
    for message in _list(messages):
        calls = [message.get("function_call"), *_list(message.get("tool_calls"))] if isinstance(message, dict) else []
        for call in calls:
            function = call.get("function", call) if isinstance(call, dict) else None
            arguments = function.get("arguments") if isinstance(function, dict) else None
            if isinstance(arguments, str):
                yield arguments


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


Messages = Annotated[
    list[Message],
    FAIL_FAST,
    BeforeValidator(_within_limits),
    at_most(MAX_MESSAGES),
    Field(min_length=1, max_length=MAX_MESSAGES, description="The conversation so far."),
]
