"""The quick start of `instructor`: answers into a type by a tool call, by a JSON Schema and by JSON; streamed; async."""

from __future__ import annotations

import asyncio

import instructor
import openai
import pytest
from instructor.core import InstructorRetryException

from tests.clients.quickstarts.scripts import DESCRIBE_PARIS, KEY, MODEL, PARIS, TOO_HOT, City, calls

CALL_PARIS = calls("City", **PARIS.model_dump())
CALL_PARIS_IN_PARTS = calls("PartialCity", **PARIS.model_dump())
JSON_MODES = (instructor.Mode.JSON_SCHEMA, instructor.Mode.JSON)


def client_of(url: str, mode: instructor.Mode) -> instructor.Instructor:
    return instructor.from_openai(openai.OpenAI(base_url=url, api_key=KEY, max_retries=0), mode=mode)


@pytest.mark.parametrize(
    ("mode", "expected_text"), [(instructor.Mode.TOOLS, CALL_PARIS), *((mode, DESCRIBE_PARIS) for mode in JSON_MODES)]
)
def test_a_type_is_answered(url: str, mode: instructor.Mode, expected_text: str) -> None:
    city = client_of(url, mode).chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": expected_text}], response_model=City, max_retries=0
    )
    assert isinstance(city, City)
    assert city.model_dump() == PARIS.model_dump()


@pytest.mark.parametrize(
    ("mode", "expected_text"), [(instructor.Mode.TOOLS, CALL_PARIS_IN_PARTS), *((mode, DESCRIBE_PARIS) for mode in JSON_MODES)]
)
def test_a_type_is_streamed(url: str, mode: instructor.Mode, expected_text: str) -> None:
    parts = list(
        client_of(url, mode).chat.completions.create_partial(
            model=MODEL, messages=[{"role": "user", "content": expected_text}], response_model=City, max_retries=0
        )
    )
    assert len(parts) > 1
    assert parts[-1].model_dump() == PARIS.model_dump()


def test_async(url: str) -> None:
    async def run() -> City:
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
            return await instructor.from_openai(client).chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": CALL_PARIS}], response_model=City, max_retries=0
            )

    assert asyncio.run(run()).model_dump() == PARIS.model_dump()


def test_error(url: str) -> None:
    with pytest.raises(InstructorRetryException, match="temperature"):
        client_of(url, instructor.Mode.TOOLS).chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": CALL_PARIS}], response_model=City, max_retries=0, **TOO_HOT
        )
