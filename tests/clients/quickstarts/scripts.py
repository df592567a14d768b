"""The scripted prompts of the quick starts for the fake engine, and the types of the answers. Knows no client."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel

MODEL = "smollm2-135m"
KEY = "unused"
HELLO = "[[reply: Hello there]]"
WEATHER = "21 degrees in Paris"
TOO_HOT: dict[str, Any] = {"temperature": 9}  # a bad request


class City(BaseModel):
    """A city and how many live in it."""

    name: str
    inhabitants: int


class Size(BaseModel):
    """A type with few values, so that an answer ends whatever a model generates."""

    size: Literal["small", "large"]


PARIS = City(name="Paris", inhabitants=2_100_000)
DESCRIBE_PARIS = f"[[reply: {json.dumps(PARIS.model_dump())}]]"
WEATHER_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def get_weather(city: str) -> str:
    """The weather of a city."""
    assert city == "Paris"
    return WEATHER


def calls(name: str, /, **arguments: Any) -> str:
    """A user's text that makes the fake engine call a tool. (It answers a tool's result by repeating it.)"""
    return f"[[reply: {json.dumps({'tool_calls': [{'name': name, 'arguments': arguments}]})}]]"


ASK_WEATHER = calls("get_weather", city="Paris")
