"""`/tokenize`, `/detokenize` and the count of a chat's tokens: the very tokens that a request would have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from runtime.engines.fake import ASSISTANT, USER
from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer, error_of

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Gr\u00fc\u00dfe"}]


def tokenized(http: httpx.Client, **body: Any) -> dict[str, Any]:
    response = http.post("/tokenize", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_text_becomes_its_tokens(http: httpx.Client) -> None:
    answer = tokenized(http, prompt="h\u00e9")
    assert answer == {"count": 3, "max_model_len": 8192, "tokens": [0x68, 0xC3, 0xA9]}


def test_texts_of_tokens_come_if_requested(http: httpx.Client) -> None:
    assert tokenized(http, prompt="h\u00e9", return_token_strs=True)["token_strs"] == ["h", "\ufffd", "\ufffd"]
    assert "token_strs" not in tokenized(http, prompt="h", return_token_strs=False)


def test_no_text_is_no_tokens(http: httpx.Client) -> None:
    assert tokenized(http, prompt="")["count"] == 0


def test_a_conversation_is_tokenized_by_the_chat_template(http: httpx.Client) -> None:
    answer = tokenized(http, messages=[{"role": "user", "content": "a"}])
    assert answer["tokens"] == [USER, ord("a"), ASSISTANT]
    unprompted = tokenized(http, messages=[{"role": "user", "content": "a"}], add_generation_prompt=False)
    assert unprompted["tokens"] == [USER, ord("a")]
    continued = tokenized(
        http,
        messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        continue_final_message=True,
        return_token_strs=True,
    )
    assert continued["token_strs"] == ["<|user|>", "a", "<|assistant|>", "b"]


def test_what_is_too_long_for_the_model_is_counted(http: httpx.Client) -> None:
    assert tokenized(http, prompt="x" * 20_000)["count"] == 20_000
    assert error_of(http.post("/v1/completions", json={"prompt": "x" * 20_000}), 400)["code"] == "context_length_exceeded"


@pytest.mark.parametrize("field", ["prompt", "content"])
def test_megabytes_are_refused_unread(http: httpx.Client, field: str) -> None:
    error = error_of(http.post("/tokenize", json={field: "x" * (2 << 20)}), 400)
    assert (error["param"], error["code"]) == (field, "context_length_exceeded")
    assert "at least" in error["message"]


def test_llama_servers_request_gets_its_answer(http: httpx.Client) -> None:
    assert tokenized(http, content="h\u00e9") == {"tokens": [0x68, 0xC3, 0xA9]}
    assert tokenized(http, content="h\u00e9", with_pieces=True, parse_special=True) == {
        "tokens": [{"id": 0x68, "piece": "h"}, {"id": 0xC3, "piece": [0xC3]}, {"id": 0xA9, "piece": [0xA9]}]
    }


@pytest.mark.parametrize("text", ["", "plain", "a" * 300_000, "Gr\u00fc\u00dfe \U0001f600\0", "<|user|>hi<|assistant|>"])
def test_tokens_become_their_text_again(http: httpx.Client, text: str) -> None:
    tokens = tokenized(http, prompt=text)["tokens"]
    response = http.post("/detokenize", json={"tokens": tokens})
    assert response.json() == {"prompt": text}


def test_half_a_character_is_reported_as_such(http: httpx.Client) -> None:
    assert http.post("/detokenize", json={"tokens": [0xC3]}).json() == {"prompt": "\ufffd"}


def test_an_id_outside_the_vocabulary_is_refused(http: httpx.Client) -> None:
    error = error_of(http.post("/detokenize", json={"tokens": [1, 259]}), 400)
    assert error["param"] == "tokens"
    assert "0 to 258" in error["message"]


@pytest.mark.parametrize("extra", [{}, {"tools": TOOLS}, {"tools": TOOLS, "tool_choice": "none"}, {"n": 2}], ids=str)
def test_the_count_is_what_the_answer_will_say(http: httpx.Client, extra: dict[str, Any]) -> None:
    body = {"messages": CHAT, **extra}
    counted = http.post("/v1/chat/completions/input_tokens", json=body)
    answered = http.post("/v1/chat/completions", json=body | {"max_tokens": 2})
    assert counted.status_code == answered.status_code == 200, counted.text + answered.text
    assert counted.json() == {
        "object": "response.input_tokens",
        "input_tokens": answered.json()["usage"]["prompt_tokens"],
    }
    assert tokenized(http, **body)["count"] == counted.json()["input_tokens"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": None}, "prompt"),
        ("/tokenize", {"prompt": ["a"]}, "prompt"),
        ("/tokenize", {"prompt": "a", "add_special_tokens": 1}, "add_special_tokens"),
        ("/tokenize", {"content": 5}, "content"),
        ("/tokenize", {"content": "a", "with_pieces": "yes"}, "with_pieces"),
        ("/tokenize", {"content": "a", "parse_special": False}, "parse_special"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": [{"role": "king", "content": "a"}]}, "messages.0.role"),
        ("/tokenize", {"messages": CHAT, "chat_template": "x"}, "chat_template"),
        ("/tokenize", {"messages": CHAT, "return_token_strs": "yes"}, "return_token_strs"),
        ("/tokenize", {"messages": CHAT, "prompt": "a"}, "messages"),
        ("/tokenize", [], "body"),
        ("/tokenize", {"prompt": "a", "model": 5}, "model"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "abc"}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0"),
        ("/detokenize", {"tokens": [1.5]}, "tokens.0"),
        ("/detokenize", {"tokens": [True]}, "tokens.0"),
        ("/detokenize", {"tokens": [2**31]}, "tokens.0"),
        ("/v1/chat/completions/input_tokens", {}, "messages"),
        ("/v1/chat/completions/input_tokens", {"messages": CHAT, "temperature": 5}, "temperature"),
    ],
)
def test_a_wrong_field_is_named(http: httpx.Client, path: str, body: Any, param: str | None) -> None:
    assert error_of(http.post(path, json=body), 400)["param"] == param


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_an_unknown_model_is_named(http: httpx.Client, path: str) -> None:
    error = error_of(http.post(path, json={"model": "nobody", "prompt": "a", "tokens": []}), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")


def test_functions_are_refused_by_the_name_that_they_came_with(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(models={"smollm2-135m": {"tool_format": "none"}})
    body = {"messages": CHAT, "functions": [{"name": "now"}]}
    with LiveServer(settings) as server, httpx.Client(base_url=server.url, trust_env=False) as http:
        assert error_of(http.post("/v1/chat/completions/input_tokens", json=body), 400)["param"] == "functions"


def test_the_log_says_what_was_requested_but_not_the_text(
    live: LiveServer, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        tokenized(http, prompt="a secret")
        http.post("/detokenize", json={"tokens": list(b"a secret")})
        live.wait_idle()  # a request is logged after it was answered
    routes = [record.__dict__["fields"]["route"] for record in caplog.records if record.message == "request"]
    assert routes == ["/tokenize", "/detokenize"]
    assert "secret" not in "".join(f"{record.message}{record.__dict__}" for record in caplog.records)


def test_nothing_stays_held(live: LiveServer, http: httpx.Client) -> None:
    """The inquiry to the tokenizer was open work, and is not any more."""
    tokenized(http, prompt="abc")
    error_of(http.post("/detokenize", json={"tokens": [500]}), 400)
    live.wait_idle()
    assert [model.num_leases for model in live.parts.pool.loaded()] == [0]


def test_a_tokenizer_that_does_not_answer_in_time_is_not_waited_for(make_settings: Callable[..., Settings]) -> None:
    with LiveServer(make_settings(request_timeout_s=1e-6)) as server, httpx.Client(base_url=server.url, trust_env=False) as http:
        response = http.post("/tokenize", json={"prompt": "a"})
        assert error_of(response, 503)["code"] == "deadline_exceeded"
        assert response.headers["retry-after"] == "1"
        server.wait_idle()
        assert [model.num_leases for model in server.parts.pool.loaded()] == [0]


def test_the_default_model_counts_and_spells_its_own_tokens(real_daemon: str) -> None:
    with httpx.Client(base_url=real_daemon, timeout=60, trust_env=False) as client:
        body = {"messages": CHAT}
        answer = client.post("/v1/chat/completions", json=body | {"max_tokens": 1}).json()
        counted = client.post("/v1/chat/completions/input_tokens", json=body).json()["input_tokens"]
        chat = tokenized(client, **body, return_token_strs=True)
        assert answer["usage"]["prompt_tokens"] == counted == chat["count"]
        assert chat["token_strs"][0] == "<|im_start|>"
        assert client.post("/detokenize", json={"tokens": chat["tokens"]}).json()["prompt"].count("<|im_start|>") == 3
        text = tokenized(client, prompt="Gr\u00fc\u00dfe, world")["tokens"]
        assert client.post("/detokenize", json={"tokens": text}).json() == {"prompt": "Gr\u00fc\u00dfe, world"}
