"""Log probabilities, token ids and scoring over HTTP, with a real worker: a fake model whose probabilities are known."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from tests.doubles.live_server import chat_body, error_of, events_of

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def chunks_of(http: httpx.Client, path: str, body: dict[str, Any]) -> list[Any]:
    with http.stream("POST", path, json=body | {"stream": True}) as response:
        assert response.status_code == 200, response.read()
        *chunks, done = events_of(response)
    assert done == "[DONE]"
    return chunks


def test_a_chat_answer_has_a_log_probability_per_token(http: httpx.Client) -> None:
    body = chat_body("[[reply: o\u00e9]]", logprobs=True, top_logprobs=2)
    content = http.post(CHAT, json=body).json()["choices"][0]["logprobs"]["content"]
    assert [token["bytes"] for token in content] == [[111], [195], [169]]
    assert [token["token"] for token in content] == ["o", "\ufffd", "\ufffd"]
    for token in content:
        assert token["logprob"] == pytest.approx(0, abs=1e-3)
        best, second = token["top_logprobs"]
        assert best["bytes"] == token["bytes"]
        assert second["logprob"] == pytest.approx(-50, abs=1e-3)


def test_without_alternatives_the_token_stands_alone(http: httpx.Client) -> None:
    content = http.post(CHAT, json=chat_body("[[reply: o]]", logprobs=True)).json()["choices"][0]["logprobs"]["content"]
    assert content[0]["top_logprobs"] == []


def test_a_stream_has_the_same_log_probabilities(http: httpx.Client) -> None:
    body = chat_body("[[reply: o\u00e9 x]]", logprobs=True, top_logprobs=1, stop="x")
    whole = http.post(CHAT, json=body).json()["choices"][0]["logprobs"]["content"]
    choices = [chunk["choices"][0] for chunk in chunks_of(http, CHAT, body)]
    assert [token for choice in choices if choice["logprobs"] for token in choice["logprobs"]["content"]] == whole


def test_token_ids_of_prompt_and_answer(http: httpx.Client) -> None:
    body = chat_body("[[reply: ok]]", return_token_ids=True)
    answer = http.post(CHAT, json=body).json()
    prompt_ids = [256, *b"[[reply: ok]]", 257]
    assert answer["prompt_token_ids"] == prompt_ids
    assert answer["choices"][0]["token_ids"] == [*b"ok", 258]
    first, *chunks = chunks_of(http, CHAT, body)
    assert first["prompt_token_ids"] == prompt_ids
    assert [token for chunk in chunks for token in chunk["choices"][0]["token_ids"]] == [*b"ok", 258]
    choice = http.post(COMPLETIONS, json={"prompt": prompt_ids, "return_token_ids": True}).json()["choices"][0]
    assert (choice["prompt_token_ids"], choice["token_ids"]) == (prompt_ids, [*b"ok", 258])
    pieces = [each["choices"][0] for each in chunks_of(http, COMPLETIONS, {"prompt": prompt_ids, "return_token_ids": True})]
    assert pieces[0]["prompt_token_ids"] == prompt_ids
    assert [token for each in pieces for token in each["token_ids"]] == [*b"ok", 258]


def test_completions_return_log_probabilities_in_their_own_shape(http: httpx.Client) -> None:
    prompt = "<|user|>[[reply: ok]]<|assistant|>"
    logprobs = http.post(COMPLETIONS, json={"prompt": prompt, "logprobs": 2}).json()["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["o", "k"]
    assert logprobs["token_logprobs"] == pytest.approx([0, 0], abs=1e-3)
    assert [len(top) for top in logprobs["top_logprobs"]] == [2, 2]
    assert logprobs["text_offset"] == [0, 1]


def test_a_text_is_scored_without_an_answer(http: httpx.Client) -> None:
    """The fake model is sure of its scripted reply, and gives all other tokens the same small probability."""
    reported, continuation = "<|user|>[[reply: ok]]<|assistant|>", "ox"
    body = {"prompt": reported + continuation, "echo": True, "max_tokens": 0, "logprobs": 1}
    answer = http.post(COMPLETIONS, json=body).json()
    choice = answer["choices"][0]
    assert choice["text"] == reported + continuation
    assert choice["finish_reason"] == "length"
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == reported + continuation
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["token_logprobs"][-2:] == pytest.approx([0, -50], abs=1e-3)
    assert logprobs["top_logprobs"][-1]["k"] == pytest.approx(0, abs=1e-3)
    assert [choice["text"][offset] for offset in logprobs["text_offset"][-2:]] == ["o", "x"]
    assert answer["usage"]["completion_tokens"] == 0
    streamed = [chunk["choices"][0] for chunk in chunks_of(http, COMPLETIONS, body)]
    assert [token for each in streamed if each["logprobs"] for token in each["logprobs"]["tokens"]] == logprobs["tokens"]


def test_an_echo_alone_is_the_prompt(http: httpx.Client) -> None:
    body = {"prompt": "hi", "echo": True, "max_tokens": 0}
    choice = http.post(COMPLETIONS, json=body).json()["choices"][0]
    assert choice == {"index": 0, "text": "hi", "logprobs": None, "finish_reason": "length", "stop_reason": None}
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks_of(http, COMPLETIONS, body)) == "hi"


def test_an_echo_with_an_answer_has_both(http: httpx.Client) -> None:
    prompt = "<|user|>[[reply: ok]]<|assistant|>"
    choice = http.post(COMPLETIONS, json={"prompt": prompt, "echo": True, "logprobs": 0, "max_tokens": 1}).json()["choices"][0]
    assert choice["text"] == prompt + "o"
    assert choice["logprobs"]["tokens"][-1] == "o"
    assert len(choice["logprobs"]["tokens"]) == len(choice["logprobs"]["token_logprobs"])


def test_log_probabilities_of_a_prompt(http: httpx.Client) -> None:
    body = {"prompt": "<|user|>[[reply: ok]]<|assistant|>o", "prompt_logprobs": 1, "max_tokens": 1}
    first, *others = http.post(COMPLETIONS, json=body).json()["choices"][0]["prompt_logprobs"]
    assert first is None
    assert others[-1] == {"111": {"logprob": pytest.approx(0, abs=1e-3), "rank": 1, "decoded_token": "o"}}
    chat = http.post(CHAT, json=chat_body("[[reply: ok]]", prompt_logprobs=0)).json()["prompt_logprobs"]
    assert all(len(each) == 1 and math.isfinite(next(iter(each.values()))["logprob"]) for each in chat[1:])


def test_usage_in_every_chunk(http: httpx.Client) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = chunks_of(http, CHAT, chat_body("[[reply: abc]]", stream_options=options))
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == [0, 1, 2, 3, 4, 4]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, chat_body("hi", top_logprobs=2), "top_logprobs"),
        (CHAT, chat_body("hi", logprobs=True, top_logprobs=21), "top_logprobs"),
        (CHAT, chat_body("hi", logprobs=1), "logprobs"),
        (CHAT, chat_body("hi", prompt_logprobs=-1), "prompt_logprobs"),
        (COMPLETIONS, {"prompt": "a", "logprobs": 21}, "logprobs"),
        (COMPLETIONS, {"prompt": "a", "logprobs": True}, "logprobs"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ],
)
def test_what_cannot_be_returned_is_refused(http: httpx.Client, path: str, body: Any, param: str) -> None:
    assert error_of(http.post(path, json=body), 400)["param"] == param
