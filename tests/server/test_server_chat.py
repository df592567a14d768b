"""Chat completions over HTTP, with a real worker: shapes, streams, failures before and after the first token, and leaving."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.doubles.live_server import LiveServer, chat_body, error_of, events_of

CHAT = "/v1/chat/completions"


def stream(http: httpx.Client, body: dict[str, Any]) -> list[Any]:
    with http.stream("POST", CHAT, json=body | {"stream": True}) as response:
        assert response.status_code == 200, response.read()
        return list(events_of(response))


def text_of(events: list[Any]) -> str:
    chunks = [event for event in events if event != "[DONE]"]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def test_a_whole_answer(http: httpx.Client) -> None:
    answer = http.post(CHAT, json=chat_body("[[reply: hello \u00e9\U0001f600]]", model="smollm2-135m")).json()
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{24}", answer.pop("id"))
    assert answer.pop("created") > 1_700_000_000
    assert re.fullmatch(r"slmops-[^/]+/smollm2-135m:1", answer.pop("system_fingerprint"))
    usage = answer.pop("usage")
    assert answer == {
        "object": "chat.completion",
        "model": "smollm2-135m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello \u00e9\U0001f600", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
            }
        ],
    }
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == len("hello \u00e9\U0001f600".encode()) + 1


@pytest.mark.parametrize("model", [None, "", "smollm2-135m", "smollm2-135m:1"])
def test_the_model_may_be_left_out_and_is_echoed(http: httpx.Client, model: str | None) -> None:
    assert http.post(CHAT, json=chat_body("hi", model=model)).json()["model"] == (model or "smollm2-135m")


def test_an_unknown_model_names_the_remedy(http: httpx.Client) -> None:
    error = error_of(http.post(CHAT, json=chat_body("hi", model="nobody")), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert "--engine fake" in error["message"]


def test_a_prompt_that_repeats_is_cached(http: httpx.Client) -> None:
    body = chat_body("[[reply: x]]" + "a long enough beginning " * 20)
    http.post(CHAT, json=body)
    usage = http.post(CHAT, json=body).json()["usage"]
    assert 0 < usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]


def test_a_stream_begins_with_the_role_and_ends_with_done(http: httpx.Client) -> None:
    events = stream(http, chat_body('[[reply: a "quoted" \u00e9 \U0001f600 end]]'))
    assert events[-1] == "[DONE]"
    first, *middle, last = events[:-1]
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(list(chunk["choices"][0]["delta"]) == ["content"] for chunk in middle)
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    assert text_of(events) == 'a "quoted" \u00e9 \U0001f600 end'
    assert {chunk["object"] for chunk in events[:-1]} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in events[:-1]}) == 1
    assert all("usage" not in chunk for chunk in events[:-1])


def test_a_stream_can_end_with_its_usage(http: httpx.Client) -> None:
    body = chat_body("[[reply: abc]]")
    events = stream(http, body | {"stream_options": {"include_usage": True}})
    *chunks, last = events[:-1]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    whole = http.post(CHAT, json=body).json()["usage"]
    assert {**last["usage"], "prompt_tokens_details": None} == {**whole, "prompt_tokens_details": None}


def test_a_stream_is_not_to_be_buffered(http: httpx.Client) -> None:
    with http.stream("POST", CHAT, json=chat_body("hi", stream=True)) as response:
        response.read()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-request-id"].startswith("req_")
        assert "content-length" not in response.headers


def test_tokens_arrive_as_they_are_made(http: httpx.Client) -> None:
    """An endless answer can only be read at all when it is not collected first."""
    with http.stream("POST", CHAT, json=chat_body("[[endless]][[delay: 0.001]]", stream=True)) as response:
        events = events_of(response)
        got = [next(events) for _ in range(10)]
    assert text_of(got) == "x" * 9


def test_max_completion_tokens_wins_over_max_tokens(http: httpx.Client) -> None:
    answer = http.post(CHAT, json=chat_body("[[endless]]", max_tokens=9, max_completion_tokens=3)).json()
    assert answer["choices"][0]["message"]["content"] == "xxx"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_a_stop_text_is_reported(http: httpx.Client) -> None:
    choice = http.post(CHAT, json=chat_body("[[reply: one two three]]", stop=" th")).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"], choice["stop_reason"]) == ("one two", "stop", " th")


def test_developers_are_systems_and_parts_are_joined(http: httpx.Client) -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    answer = http.post(CHAT, json={"messages": messages}).json()
    assert answer["choices"][0]["message"]["content"] == "You said: a\nb"


def test_the_last_message_can_be_continued(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "[[reply: abcdef]]"}, {"role": "assistant", "content": "abc"}]
    answer = http.post(CHAT, json={"messages": messages, "continue_final_message": True}).json()
    assert answer["choices"][0]["message"]["content"] == "def"


def test_a_step_that_fails_before_the_first_token_is_a_plain_error(http: httpx.Client) -> None:
    for streams in (False, True):
        error = error_of(http.post(CHAT, json=chat_body("[[fail]]", stream=streams)), 500)
        assert error["code"] == "step_failed"


def test_a_prompt_over_the_context_is_a_plain_error_of_a_stream_too(http: httpx.Client) -> None:
    response = http.post(CHAT, json=chat_body("x" * 9000, stream=True))
    assert error_of(response, 400)["code"] == "context_length_exceeded"


def test_a_worker_that_dies_in_mid_stream_ends_it_with_an_error_event(live: LiveServer, http: httpx.Client) -> None:
    with http.stream("POST", CHAT, json=chat_body("[[endless]][[delay: 0.001]]", stream=True)) as response:
        events = events_of(response)
        next(events), next(events)
        with pytest.raises(httpx.HTTPStatusError, match="503"):
            httpx.post(live.url + CHAT, json=chat_body("[[crash]]"), timeout=30, trust_env=False).raise_for_status()
        rest = list(events)
    assert rest[-1]["error"]["code"] == "engine_dead"
    assert "[DONE]" not in rest
    assert http.post(CHAT, json=chat_body("still there?")).status_code == 200


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_leaves_stops_its_row(live: LiveServer, http: httpx.Client, streams: bool) -> None:
    aborted = 'vllm:request_success_total{engine="1",finished_reason="abort",model_name="smollm2-135m"}'
    before = value_of(http, aborted)
    if streams:
        with http.stream("POST", CHAT, json=chat_body("[[endless]][[delay: 0.001]]", stream=True)) as response:
            events = events_of(response)
            next(events)
    else:
        with pytest.raises(httpx.ReadTimeout):
            http.post(CHAT, json=chat_body("[[endless]][[delay: 0.001]]"), timeout=0.3)
    live.wait_idle()
    assert value_of(http, aborted) == before + 1
    assert live.parts.pool.loaded()[0].num_leases == 0


def value_of(http: httpx.Client, series: str) -> float:
    line = next(line for line in http.get("/metrics").text.splitlines() if line.startswith(series))
    return float(line.rpartition(" ")[2])


def test_more_prompts_than_can_ever_fit_are_refused(http: httpx.Client) -> None:
    error = error_of(http.post("/v1/completions", json={"prompt": ["x"] * 13}), 400)
    assert "13" in error["message"]
    assert "12" in error["message"]
