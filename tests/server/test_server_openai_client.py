"""OpenAI's own client against a real daemon process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from tests.doubles.logged_daemon import DaemonProcess


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    with (
        DaemonProcess(tmp_path_factory.mktemp("home"), api_key="key") as daemon,
        openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="key", max_retries=0, timeout=30) as client,
    ):
        yield client


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="smollm2-135m", messages=[{"role": "user", "content": "hi"}])
    assert answer.choices[0].message.content == "You said: hi"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None


def test_chat_without_a_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="", messages=[{"role": "user", "content": "hi"}])
    assert answer.model == "smollm2-135m"


def test_chat_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="smollm2-135m",
        messages=[{"role": "user", "content": "[[reply: hello there]]"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "hello there"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len("hello there") + 1


def test_completions(client: openai.OpenAI) -> None:
    prompt = "<|user|>[[reply: ok]]<|assistant|>"
    answer = client.completions.create(model="smollm2-135m", prompt=[prompt, prompt], echo=False)
    assert [choice.text for choice in answer.choices] == ["ok", "ok"]
    pieces = [chunk.choices[0].text for chunk in client.completions.create(model="smollm2-135m", prompt=prompt, stream=True)]
    assert "".join(pieces) == "ok"


class Person(BaseModel):
    name: Literal["Ann", "Bo"]
    age: Annotated[int, Field(ge=0, le=99)]


class Add(BaseModel):
    """Adds two numbers."""

    a: int
    b: int


QUESTION: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
CALL = '{"tool_calls": [{"name": "Add", "arguments": {"a": 1, "b": 2}}]}'


def test_a_parsed_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model="smollm2-135m", messages=QUESTION, response_format=Person, seed=1)
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_a_parsed_call(client: openai.OpenAI) -> None:
    tools = [openai.pydantic_function_tool(Add)]
    answer = client.chat.completions.parse(
        model="smollm2-135m", messages=QUESTION, tools=tools, tool_choice="required", parallel_tool_calls=False, seed=1
    )
    (call,) = answer.choices[0].message.tool_calls or ()
    assert isinstance(call.function.parsed_arguments, Add)


def test_a_streamed_call_and_its_result(client: openai.OpenAI) -> None:
    tools = [openai.pydantic_function_tool(Add)]
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": f"[[reply: {CALL}]]"}]
    with client.chat.completions.stream(model="smollm2-135m", messages=messages, tools=tools) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_completion().choices[0].message
    assert "tool_calls.function.arguments.delta" in kinds
    (call,) = message.tool_calls or ()
    assert call.function.parsed_arguments == Add(a=1, b=2)
    turn = message.model_dump(exclude_none=True, exclude={"parsed"})
    result = {"role": "tool", "tool_call_id": call.id, "content": "3"}
    answer = client.chat.completions.create(model="smollm2-135m", messages=[*messages, turn, result], tools=tools)  # type: ignore[list-item]
    assert "3" in (answer.choices[0].message.content or "")


def test_choices_with_log_probabilities(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="smollm2-135m", messages=QUESTION, n=2, logprobs=True, top_logprobs=2)
    assert len(answer.choices) == 2
    for choice in answer.choices:
        assert choice.logprobs is not None
        assert "".join(token.token for token in choice.logprobs.content or ()) == choice.message.content


def test_a_prediction_is_counted(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="smollm2-135m",
        messages=[{"role": "user", "content": "[[reply: the same words again]]"}],
        prediction={"type": "content", "content": "the same words again"},
    )
    assert answer.choices[0].message.content == "the same words again"
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert (answer.usage.completion_tokens_details.accepted_prediction_tokens or 0) > 0


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["smollm2-135m"]
    assert client.models.retrieve("smollm2-135m").owned_by == "slmops"


def test_errors_are_the_clients_own_kinds(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "hi"}])
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="smollm2-135m", messages=[{"role": "user", "content": "hi"}], store=True)
    assert refused.value.param == "store"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()


def test_an_error_in_mid_stream_is_raised(client: openai.OpenAI) -> None:
    crash: list[openai.types.chat.ChatCompletionUserMessageParam] = [{"role": "user", "content": "[[crash]]"}]
    stream = client.chat.completions.create(
        model="smollm2-135m", messages=[{"role": "user", "content": "[[endless]][[delay: 0.001]]"}], stream=True
    )
    next(iter(stream))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="smollm2-135m", messages=crash)
    with pytest.raises(openai.APIError, match="ended unexpectedly"):
        list(stream)
