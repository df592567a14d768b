"""The wire shapes of `response_format` and `structured_outputs`, and of JSON texts inside fields. Shapes only; compiles nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from server.http.body_errors import FAIL_FAST, at_most
from server.http.json_route import JsonLimits, TooComplex, measure

_LIMITS = JsonLimits()


def read_json_text(text: str) -> Any:
    """Raises ValueError, whose message names the fault."""
    try:
        measure(text.encode(), _LIMITS)
        return msgspec.json.decode(text)
    except TooComplex as error:
        raise ValueError(str(error)) from None
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("is not valid JSON") from None


def check_together(texts: Iterable[str]) -> None:
    """Raises ValueError when the texts of one request together hold more than one body may."""
    num_values = num_members = 0
    for text in texts:
        try:
            meter = measure(text.encode(), _LIMITS)
        except TooComplex as error:
            raise ValueError(f"has a JSON text that {error}") from None
        num_values += meter.num_values
        num_members += meter.num_members
        if num_values > _LIMITS.num_values or num_members > _LIMITS.num_members:
            raise ValueError("has JSON texts that together hold more than a body may; send fewer")


_MAX_CHOICES = 10_000
NAME = r"^[a-zA-Z0-9_-]{1,64}$"


def _schema(value: object) -> object:
    """A JSON Schema, also as its JSON text."""
    if isinstance(value, str):
        try:
            value = read_json_text(value)
        except ValueError as error:
            raise ValueError(f"{error}; send the schema as an object, or as its JSON text") from None
    if not isinstance(value, dict):
        raise ValueError("must be a JSON Schema: an object, or its JSON text")
    return value


JsonSchema = Annotated[
    dict[str, Any], BeforeValidator(_schema), WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string"}]})
]
Pattern = Annotated[str, Field(min_length=1)]
Choices = Annotated[list[Pattern], FAIL_FAST, at_most(_MAX_CHOICES), Field(min_length=1, max_length=_MAX_CHOICES)]


class JsonSchemaFormat(BaseModel):
    """OpenAI's. The schema is guaranteed, strict or not."""

    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)

    name: str = Field(pattern=NAME, description="Letters, digits, _ and -, up to 64.")
    description: str | None = Field(None, description="What the format is for; accepted, without effect.")
    schema_: dict[str, Any] = Field(alias="schema", description="A JSON Schema; {} is any JSON.")
    strict: bool | None = Field(None, description="Accepted: the schema holds in any case.")


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)

    type: Literal["text", "json_object", "json_schema"] = Field(description="Any text, any JSON object, or an object by a schema.")
    json_schema: JsonSchemaFormat | None = Field(None, description="With the type json_schema only.")

    @model_validator(mode="after")
    def _has_its_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("the type json_schema and the field json_schema go together; send both or none")
        return self


class StructuredOutputs(BaseModel):
    """vLLM's. One field at most."""

    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)

    json_: JsonSchema | None = Field(None, alias="json", description="A JSON Schema, or its JSON text.")
    regex: Pattern | None = Field(None, description="A regular expression that the whole answer matches.")
    choice: Choices | None = Field(None, description="The texts of which the answer is one.")
    grammar: Pattern | None = Field(None, description="A Lark grammar, as llguidance reads it.")
    json_object: bool | None = Field(None, description="Any JSON object.")

    @model_validator(mode="after")
    def _says_one_thing(self) -> StructuredOutputs:
        given = [self.json_, self.regex, self.choice, self.grammar, self.json_object or None]
        if sum(each is not None for each in given) > 1:
            raise ValueError("has more than one of json, regex, choice, grammar and json_object; send one of them")
        return self
