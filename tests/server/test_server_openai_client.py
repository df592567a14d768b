"""OpenAI's own client against a real daemon process."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from daemon_in_process import DaemonProcess


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


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["smollm2-135m"]
    assert client.models.retrieve("smollm2-135m").owned_by == "slmops"


def test_errors_are_the_clients_own_kinds(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "hi"}])
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="smollm2-135m", messages=[{"role": "user", "content": "hi"}], n=2)
    assert refused.value.param == "n"
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
