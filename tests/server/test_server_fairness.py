"""A flood costs its sender: others are answered beside one request for many answers, and beside hundreds of streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import Request
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from server.app import create_app
from server.http.request_record import RequestRecord
from server.principal import AccessScope, Principal
from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer, chat_body, error_of, events_of

CHAT = "/v1/chat/completions"
ENDLESS = "[[endless]][[delay: 0.001]]"
NUM_SLOTS, MAX_WAITING = 4, 8


class NamedPrincipals:
    """A layer that takes the principal of a request from its header X-Test-Principal."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (name := dict(scope["headers"]).get(b"x-test-principal")):
            key = name.decode()
            RequestRecord.of(scope).principal = Principal(key, key, frozenset({AccessScope.INFERENCE}))
        await self._app(scope, receive, send)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("home")
    settings = Settings(engine="fake", home=home, port=0, num_slots=NUM_SLOTS, max_waiting=MAX_WAITING)
    app = create_app(settings)
    app.user_middleware.append(Middleware(NamedPrincipals))  # the innermost
    with LiveServer(settings, app) as server:
        yield server


@pytest.mark.parametrize("sender", ["same", "other"])
def test_a_chat_is_answered_beside_a_request_for_more_answers_than_there_are_rows(
    live: LiveServer, http: httpx.Client, sender: str
) -> None:
    """Also where its answers fill the queue."""
    body = chat_body(ENDLESS, n=NUM_SLOTS + MAX_WAITING, stream=True)
    with http.stream("POST", CHAT, json=body, headers={"X-Test-Principal": "same"}) as flood:
        events = events_of(flood)
        next(events)
        answer = httpx.post(
            live.url + CHAT, json=chat_body("Hello"), headers={"X-Test-Principal": sender}, timeout=30, trust_env=False
        )
        assert answer.json()["choices"][0]["message"]["content"] == "You said: Hello"
        assert "error" not in next(events), "the flood goes on"
    live.wait_idle()


def test_hundreds_of_streams_of_one_key_get_the_429s_and_another_keys_chat_is_answered(live: LiveServer) -> None:
    num_streams = 60
    num_held = NUM_SLOTS + MAX_WAITING

    async def stream(client: httpx.AsyncClient) -> httpx.Response:
        request = client.build_request("POST", CHAT, json=chat_body(ENDLESS, stream=True), headers={"X-Test-Principal": "flood"})
        return await client.send(request, stream=True)

    async def scenario() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=live.url, timeout=30, trust_env=False, limits=limits) as client:
            streams = [asyncio.create_task(stream(client)) for _ in range(num_streams)]
            while len(refused := refusals(streams)) < num_streams - num_held:
                await asyncio.wait({each for each in streams if not each.done()}, return_when=asyncio.FIRST_COMPLETED)
            assert all(int(each.headers["retry-after"]) >= 1 for each in refused)
            answer = await client.post(CHAT, json=chat_body("Hello"), headers={"X-Test-Principal": "chat"})
            assert answer.status_code == 200
            assert answer.json()["choices"][0]["message"]["content"] == "You said: Hello"
            for each in streams:
                each.cancel()
            for each in await asyncio.gather(*streams, return_exceptions=True):
                if isinstance(each, httpx.Response):
                    await each.aclose()

    asyncio.run(scenario())
    live.wait_idle()


def refusals(streams: list[asyncio.Task[httpx.Response]]) -> list[httpx.Response]:
    ended = [each.result() for each in streams if each.done()]
    assert {each.status_code for each in ended} <= {200, 429}
    return [each for each in ended if each.status_code == 429]


def test_a_refused_request_says_why_and_when_to_come_again(live: LiveServer, http: httpx.Client) -> None:
    """One request for as many answers as fit, while another holds the rows."""
    with http.stream("POST", CHAT, json=chat_body(ENDLESS, n=NUM_SLOTS, stream=True)) as running:
        events = events_of(running)
        next(events)
        refused = httpx.post(live.url + CHAT, json=chat_body(ENDLESS, n=NUM_SLOTS + MAX_WAITING), timeout=30, trust_env=False)
        error = error_of(refused, 429)
    assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
    assert "at most 8 answers may wait" in error["message"]
    assert int(refused.headers["retry-after"]) >= 1
    live.wait_idle()


def test_nobody_is_believed_who_says_for_whom_a_request_is_forwarded(tmp_path: Path) -> None:
    settings = Settings(engine="fake", home=tmp_path / "home", port=0)
    app = create_app(settings)

    @app.get("/peer")
    def peer(request: Request) -> list[str]:
        assert request.client is not None
        return [request.client.host, request.url.scheme]

    claims = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Forwarded": "for=203.0.113.9;proto=https"}
    with LiveServer(settings, app) as server:
        assert httpx.get(f"{server.url}/peer", headers=claims, trust_env=False).json() == ["127.0.0.1", "http"]
