"""How tests talk to the server, and what every answer must be: 200, or a refusal that names its reason. Knows no parameter."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import httpx

from tests.contract.document import MODEL

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
INPUT_TOKENS = "/v1/chat/completions/input_tokens"
TOKENIZE = "/tokenize"
DETOKENIZE = "/detokenize"
_REQUIRED: Mapping[str, str] = {  # JSON texts, as they are soon answered
    "messages": '[{"role": "user", "content": "hi"}]',
    "prompt": '"hi"',
    "content": '"hi"',
    "tokens": "[104, 105]",
}
_NEEDS = {CHAT: "messages", COMPLETIONS: "prompt", INPUT_TOKENS: "messages", TOKENIZE: "prompt", DETOKENIZE: "tokens"}
PATHS = tuple(_NEEDS)
_HEADERS = {"Content-Type": "application/json"}


def plain(path: str, required: Collection[str] = ()) -> dict[str, str]:
    """The JSON text of each field of a request that is answered with a few tokens. required: in place of the usual one."""
    needed = {name: _REQUIRED[name] for name in required or [_NEEDS[path]]}
    return needed | ({"max_tokens": "4"} if path in (CHAT, COMPLETIONS) else {})


def post(http: httpx.Client, path: str, fields: Mapping[str, str]) -> httpx.Response:
    """fields: JSON texts."""
    body = ", ".join(f"{json.dumps(name)}: {text}" for name, text in fields.items())
    return http.post(path, content=f"{{{body}}}".encode(), headers=_HEADERS)


def post_values(http: httpx.Client, path: str, fields: Mapping[str, Any]) -> httpx.Response:
    """The plain request, with these fields."""
    return post(http, path, plain(path) | {name: json.dumps(value) for name, value in fields.items()})


def why_wrong(response: httpx.Response, blamed: Collection[str], *, is_json: bool = True) -> str | None:
    """What is wrong with an answer to a request whose fields `blamed` are at their edges; None: nothing."""
    if response.status_code == 200:
        return None if is_json else "accepted what is no JSON"
    reported = response.text[:300]
    if not 400 <= response.status_code < 500:
        return f"{response.status_code} {reported}"
    error = response.json()["error"]
    if set(error) != {"message", "type", "param", "code"}:
        return f"not an error envelope: {reported}"
    if error["code"] == "context_length_exceeded" and error["param"] in ("messages", "prompt"):
        return None  # whichever field made the prompt so long
    if not is_json:
        return None if error["code"] in ("invalid_json", "body_too_complex") else f"refused for another reason: {reported}"
    if str(error["param"]).split(".")[0] not in blamed:
        return f"{response.status_code} names {error['param']!r}: {reported}"
    return None


def events_of(response: httpx.Response) -> Iterator[str]:
    """The data of each event of a whole stream. Fails on anything that is no server-sent event."""
    assert response.headers["content-type"].split(";")[0] == "text/event-stream"
    assert response.text.endswith("\n\n"), "the stream ends within an event"
    for event in response.text.removesuffix("\n\n").split("\n\n"):
        name, _, data = event.partition(": ")
        assert name == "data", f"not an event: {event[:100]!r}"
        assert "\n" not in data, "an event of several lines"
        yield data


def assert_lives(http: httpx.Client) -> None:
    """The next plain requests are answered, and by the worker that was there from the beginning."""
    for path in PATHS:
        answer = post_values(http, path, {})
        assert answer.status_code == 200, answer.text
    loaded = http.get("/admin/models").json()["data"]
    assert {model["id"]: model["num_restarts"] for model in loaded}[f"{MODEL}:1"] == 0
