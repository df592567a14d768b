"""Completions over HTTP: every kind of prompt, one choice each, streamed interleaved."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import httpx

from tests.doubles.live_server import events_of

COMPLETIONS = "/v1/completions"
A = "<|user|>[[reply: one]]<|assistant|>"
B = "<|user|>[[reply: twofold]]<|assistant|>"


def complete(http: httpx.Client, prompt: Any, **fields: Any) -> Any:
    response = http.post(COMPLETIONS, json={"prompt": prompt, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def stream(http: httpx.Client, prompt: Any, **fields: Any) -> list[Any]:
    with http.stream("POST", COMPLETIONS, json={"prompt": prompt, "stream": True, **fields}) as response:
        assert response.status_code == 200, response.read()
        return list(events_of(response))


def test_a_text(http: httpx.Client) -> None:
    answer = complete(http, A)
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [{"index": 0, "text": "one", "logprobs": None, "finish_reason": "stop", "stop_reason": None}]
    assert answer["usage"]["completion_tokens"] == 4


def test_sixteen_tokens_is_the_default_length(http: httpx.Client) -> None:
    answer = complete(http, "<|user|>[[endless]]<|assistant|>")
    assert answer["choices"][0]["text"] == "x" * 16
    assert answer["choices"][0]["finish_reason"] == "length"


def test_texts_give_a_choice_each_and_the_sum_of_usage(http: httpx.Client) -> None:
    answer = complete(http, [A, B])
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [(0, "one"), (1, "twofold")]
    alone = [complete(http, prompt)["usage"] for prompt in (A, B)]
    for count in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert answer["usage"][count] == sum(usage[count] for usage in alone)


def test_token_ids(http: httpx.Client) -> None:
    ids = [256, *b"[[reply: ok]]", 257]
    assert complete(http, ids)["choices"][0]["text"] == "ok"
    assert [choice["text"] for choice in complete(http, [ids, ids])["choices"]] == ["ok", "ok"]


def test_an_echo_begins_with_the_prompt(http: httpx.Client) -> None:
    assert complete(http, ["ab", "c"], echo=True, max_tokens=2)["choices"][0]["text"].startswith("ab")
    events = stream(http, ["ab", "c"], echo=True, max_tokens=2)
    assert texts_of(events)[0].startswith("ab")
    assert texts_of(events)[1].startswith("c")


def texts_of(events: list[Any]) -> dict[int, str]:
    texts: defaultdict[int, str] = defaultdict(str)
    for event in events:
        if event != "[DONE]":
            for choice in event["choices"]:
                texts[choice["index"]] += choice["text"]
    return texts


def test_a_stream_interleaves_choices_and_ends_each(http: httpx.Client) -> None:
    events = stream(http, [A, B], stream_options={"include_usage": True})
    assert texts_of(events) == {0: "one", 1: "twofold"}
    ended = [choice["index"] for event in events[:-1] for choice in event["choices"] if choice["finish_reason"]]
    assert sorted(ended) == [0, 1]
    assert events[-1] == "[DONE]"
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["completion_tokens"] == len("one") + len("twofold") + 2


def test_a_failure_of_one_choice_fails_the_request(http: httpx.Client) -> None:
    response = http.post(COMPLETIONS, json={"prompt": [A, "<|user|>" + "x" * 9000 + "<|assistant|>"]})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_a_seed_repeats(http: httpx.Client) -> None:
    fields = {"temperature": 2, "seed": -5, "logit_bias": {str(token): 49 for token in range(97, 123)}, "max_tokens": 12}
    first, again = (complete(http, "hi", **fields)["choices"][0]["text"] for _ in range(2))
    other = complete(http, "hi", **(fields | {"seed": 7}))["choices"][0]["text"]
    assert first == again
    assert first != other
