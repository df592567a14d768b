"""Routes of OpenAI's API that are not supported answer so, and name an alternative, whatever is sent to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from server.app import create_app
from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer, call_app, error_of

PATHS = [
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/images/variations",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/responses/input_tokens",
]


@pytest.mark.parametrize("path", PATHS)
def test_it_says_what_is_not_done_and_what_to_do_instead(http: httpx.Client, path: str) -> None:
    error = error_of(http.post(path, json={"model": "x", "input": "y"}), 501)
    assert (error["type"], error["code"], error["param"]) == ("not_implemented_error", "not_implemented", None)
    assert len(error["message"].split(". ")) > 1, "what is not done, and a remedy"


def test_openais_client_does_not_retry(live: LiveServer) -> None:
    seen: list[httpx.Request] = []
    transport = httpx.Client(trust_env=False, event_hooks={"request": [seen.append]})
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="unused", max_retries=2, http_client=transport) as client:
        with pytest.raises(openai.APIStatusError, match="Embeddings are not computed here") as refused:
            client.embeddings.create(model="x", input="y")
        assert refused.value.status_code == 501
    assert len(seen) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"content": b""},
        {"content": b"{", "headers": {"Content-Type": "application/json"}},
        {"content": b"\xff\x00", "headers": {"Content-Type": "application/octet-stream"}},
        {"data": {"model": "whisper-1"}, "files": {"file": ("a.wav", b"RIFF" * 1000)}},
    ],
    ids=["nothing", "half of JSON", "bytes", "a form with a file"],
)
def test_it_says_so_whatever_is_sent(http: httpx.Client, body: dict[str, Any]) -> None:
    error_of(http.post("/v1/audio/transcriptions", **body), 501)


def test_a_body_without_end_is_not_waited_for(live: LiveServer) -> None:
    """The answer comes before the body has: nobody keeps it."""
    url = httpx.URL(live.url)
    with httpx.Client(trust_env=False) as client:

        def upload() -> Iterator[bytes]:
            for _ in range(6):
                yield b"\0" * (1 << 20)

        error_of(client.post(url.join("/v1/images/edits"), content=upload()), 501)
        assert client.get(url.join("/health")).status_code == 200


def test_openapi_lists_them_with_their_only_answer(make_settings: Callable[..., Settings]) -> None:
    document = call_app(create_app(make_settings()), "GET", "/openapi.json").json()
    for path in PATHS:
        operation = document["paths"][path]["post"]
        assert "501" in operation["responses"]
        assert "200" not in operation["responses"]
        assert "requestBody" not in operation
