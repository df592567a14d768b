"""The wire shapes of tools and of the choice among them, OpenAI's and its older `functions`. Shapes only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator
from pydantic_core import PydanticCustomError

from server.dialects.openai.wire.structured_output import NAME
from server.http.body_errors import FAIL_FAST, at_most

MAX_TOOLS = 128


class FunctionDefinition(BaseModel):
    """Without parameters, the function takes none."""

    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)

    name: str = Field(pattern=NAME, description="Letters, digits, _ and -, up to 64.")
    description: str | None = Field(None, description="What it does, for the model to read.")
    parameters: dict[str, Any] | None = Field(None, description="A JSON Schema of the type object.")
    strict: bool | None = Field(None, description="Refuse the request if the schema cannot be held to in every detail.")

    @field_validator("parameters")
    @classmethod
    def _of_an_object(cls, parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        if parameters is not None and parameters.get("type", "object") != "object":
            raise ValueError('must be a JSON Schema with "type": "object"')
        return parameters


def _function_only(value: object) -> object:
    if value == "custom":
        raise PydanticCustomError("unsupported", "custom tools are not supported; describe a tool of the type function")
    return value


FunctionType = Annotated[Literal["function"], BeforeValidator(_function_only)]


class Tool(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)

    type: FunctionType = Field(description="Always function.")
    function: FunctionDefinition = Field(description="What may be called.")


class FunctionName(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)

    name: str = Field(description="Of a function that the request describes.")


class NamedTool(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)

    type: FunctionType = Field(description="Always function.")
    function: FunctionName = Field(description="Which.")


Allowed = Annotated[list[NamedTool], FAIL_FAST, at_most(MAX_TOOLS), Field(min_length=1, max_length=MAX_TOOLS)]


class AllowedTools(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)

    mode: Literal["auto", "required"] = Field(description="Whether one of them must be called.")
    tools: Allowed = Field(description="Those that may be called.")


def _spelled_out(value: object) -> object:
    """`"auto"` as `{"type": "auto"}`."""
    if isinstance(value, str):
        return {"type": value}
    if isinstance(value, dict):
        _function_only(value.get("type"))
    return value


class ToolChoiceBody(BaseModel):
    """none, auto and required are written as texts, the others as objects."""

    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)

    type: Literal["none", "auto", "required", "function", "allowed_tools"]
    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> ToolChoiceBody:
        if self.type in ("function", "allowed_tools") and getattr(self, self.type) is None:
            raise ValueError(f"the type {self.type} needs a field {self.type}")
        return self


_NAMED_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
    "required": ["type", "function"],
}
_ALLOWED_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"const": "allowed_tools"},
        "allowed_tools": {
            "type": "object",
            "properties": {
                "mode": {"enum": ["auto", "required"]},
                "tools": {"type": "array", "items": _NAMED_SCHEMA, "minItems": 1},
            },
            "required": ["mode", "tools"],
        },
    },
    "required": ["type", "allowed_tools"],
}
ToolChoiceField = Annotated[
    ToolChoiceBody,
    BeforeValidator(_spelled_out),
    WithJsonSchema({"anyOf": [{"enum": ["none", "auto", "required"]}, _NAMED_SCHEMA, _ALLOWED_SCHEMA]}),
]


def _one_function(value: object) -> object:
    """`function_call` of the older API, as what `tool_choice` would be."""
    if isinstance(value, dict):
        return {"type": "function", "function": value}
    if value in ("none", "auto"):
        return {"type": value}
    raise ValueError('must be none, auto, or an object like {"name": "..."}')


FunctionCallField = Annotated[
    ToolChoiceBody,
    BeforeValidator(_one_function),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["none", "auto"]},
                {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            ]
        }
    ),
]


def _unique(names: list[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ValueError(f"has two functions of the name {name}; names must be unique")


Tools = Annotated[list[Tool], FAIL_FAST, at_most(MAX_TOOLS), Field(max_length=MAX_TOOLS)]
Functions = Annotated[list[FunctionDefinition], FAIL_FAST, at_most(MAX_TOOLS), Field(max_length=MAX_TOOLS)]


class ToolFields(BaseModel):
    """The tools of a chat request."""

    tools: Tools | None = Field(None, description="Functions that the model may call.")
    tool_choice: ToolChoiceField | None = Field(None, description="Whether to call, and what; auto by default.")
    parallel_tool_calls: bool | None = Field(None, description="Several calls in one answer; true by default.")
    functions: Functions | None = Field(None, description="Older form of tools.")
    function_call: FunctionCallField | None = Field(None, description="Older form of tool_choice.")

    @field_validator("tools")
    @classmethod
    def _tools_with_unique_names(cls, tools: list[Tool] | None) -> list[Tool] | None:
        _unique([tool.function.name for tool in tools or ()])
        return tools

    @field_validator("functions")
    @classmethod
    def _functions_with_unique_names(cls, functions: list[FunctionDefinition] | None) -> list[FunctionDefinition] | None:
        _unique([function.name for function in functions or ()])
        return functions
