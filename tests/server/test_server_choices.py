"""Several choices per prompt, over HTTP: their order, their seeds, their usage, how many are possible, and the best of them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import httpx
import pytest

from tests.doubles.live_server import LiveServer, chat_body, error_of, events_of

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
WARM = {"temperature": 2, "logit_bias": {str(token): 49 for token in range(97, 123)}, "max_tokens": 12}


def test_choices_of_chat_share_a_prompt(http: httpx.Client) -> None:
    alone = http.post(CHAT, json=chat_body("[[reply: ok]]")).json()["usage"]
    answer = http.post(CHAT, json=chat_body("[[reply: ok]]", n=3)).json()
    assert [(each["index"], each["message"]["content"]) for each in answer["choices"]] == [(0, "ok"), (1, "ok"), (2, "ok")]
    assert answer["usage"]["prompt_tokens"] == alone["prompt_tokens"]
    assert answer["usage"]["completion_tokens"] == 3 * alone["completion_tokens"]


def test_choices_are_streamed_each_from_its_role_to_its_end(http: httpx.Client) -> None:
    body = chat_body("[[reply: hello]]", n=3, stream=True, stream_options={"include_usage": True})
    with http.stream("POST", CHAT, json=body) as response:
        *chunks, usage, done = events_of(response)
    assert done == "[DONE]"
    texts: defaultdict[int, str] = defaultdict(str)
    roles: list[int] = []
    ends: list[int] = []
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        assert choice["index"] not in ends
        texts[choice["index"]] += choice["delta"].get("content", "")
        roles += [choice["index"]] if "role" in choice["delta"] else []
        ends += [choice["index"]] if choice["finish_reason"] else []
    assert texts == {0: "hello", 1: "hello", 2: "hello"}
    assert (sorted(roles), sorted(ends)) == ([0, 1, 2], [0, 1, 2])
    assert usage["usage"]["completion_tokens"] == 3 * len("hello.")


def test_choices_come_prompt_by_prompt(http: httpx.Client) -> None:
    prompts = [f"<|user|>[[reply: {word}]]<|assistant|>" for word in ("one", "two")]
    answer = http.post(COMPLETIONS, json={"prompt": prompts, "n": 2}).json()
    assert [(each["index"], each["text"]) for each in answer["choices"]] == [(0, "one"), (1, "one"), (2, "two"), (3, "two")]
    alone = [http.post(COMPLETIONS, json={"prompt": prompt}).json()["usage"]["prompt_tokens"] for prompt in prompts]
    assert answer["usage"]["prompt_tokens"] == sum(alone)


def test_a_seeded_choice_is_the_answer_of_its_own_seed(http: httpx.Client) -> None:
    body = {"prompt": "hi", **WARM}
    several = http.post(COMPLETIONS, json=body | {"n": 3, "seed": 5}).json()["choices"]
    alone = [http.post(COMPLETIONS, json=body | {"seed": seed}).json()["choices"][0]["text"] for seed in (5, 6, 7)]
    assert [choice["text"] for choice in several] == alone
    assert len(set(alone)) == 3


def test_the_best_are_the_likeliest_and_all_are_counted(http: httpx.Client) -> None:
    body = {"prompt": "hi", "seed": 5, **WARM}
    every = http.post(COMPLETIONS, json=body | {"n": 4, "logprobs": 0}).json()
    best = http.post(COMPLETIONS, json=body | {"n": 2, "best_of": 4}).json()

    def mean(choice: dict[str, Any]) -> float:
        values = choice["logprobs"]["token_logprobs"]
        return sum(values) / len(values)

    likeliest = sorted(every["choices"], key=mean, reverse=True)[:2]
    assert [choice["text"] for choice in best["choices"]] == [choice["text"] for choice in likeliest]
    assert all(choice["logprobs"] is None for choice in best["choices"])
    assert best["usage"]["completion_tokens"] == every["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("path", "body", "requested", "param"),
    [
        (CHAT, chat_body("hi", n=13), "13 choices", "n"),
        (COMPLETIONS, {"prompt": ["a", "b"], "n": 7}, "14 choices", "n"),
        (COMPLETIONS, {"prompt": "a", "best_of": 13}, "13 choices", "n"),
        (COMPLETIONS, {"prompt": ["a"] * 13}, "13 prompts", "prompt"),
    ],
)
def test_more_than_can_ever_fit_are_refused(http: httpx.Client, path: str, body: Any, requested: str, param: str) -> None:
    error = error_of(http.post(path, json=body), 400)
    assert f"{requested} are more than the 12" in error["message"]
    assert error["param"] == param


def test_a_choice_that_fails_fails_the_request_and_ends_the_others(live: LiveServer, http: httpx.Client) -> None:
    error = error_of(http.post(CHAT, json=chat_body("[[fail]]", n=3)), 500)
    assert error["code"] == "step_failed"
    live.wait_idle()
    assert live.parts.pool.loaded()[0].num_leases == 0


def test_how_many_were_requested_is_observed(http: httpx.Client) -> None:
    def requested() -> float:
        lines = http.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith("vllm:request_params_n_sum")).rpartition(" ")[2])

    before = requested()
    http.post(CHAT, json=chat_body("hi", n=4))
    assert requested() == before + 4
