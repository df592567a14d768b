"""Probes, the list of models, and loading and unloading by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from server.app import create_app
from server.http.paths import PathsAndMethods
from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer, call_app, chat_body, error_of


def test_alive_without_any_model(make_settings: Callable[..., Settings]) -> None:
    assert call_app(create_app(make_settings()), "GET", "/health").json() == {"status": "ok"}


def test_ready_once_the_default_model_is_loaded(http: httpx.Client) -> None:
    response = http.get("/ready")
    assert (response.status_code, response.json()) == (200, {"status": "ready"})


def test_not_ready_without_the_default_model(make_settings: Callable[..., Settings]) -> None:
    app = create_app(make_settings(engine="onnx", model="nobody"))
    response = call_app(app, "GET", "/ready")
    assert "slmops catalog" in error_of(response, 503)["message"]
    assert int(response.headers["retry-after"]) >= 1
    assert call_app(app, "GET", "/health").status_code == 200


def test_an_empty_registry_has_no_models(make_settings: Callable[..., Settings]) -> None:
    app = create_app(make_settings(engine="onnx"))
    assert call_app(app, "GET", "/v1/models").json() == {"object": "list", "data": []}
    error = error_of(call_app(app, "POST", "/v1/chat/completions", json=chat_body("hi")), 404)
    assert "slmops pull smollm2-135m" in error["message"]


def test_version(http: httpx.Client) -> None:
    body = http.get("/version").json()
    assert body["name"] == "slmops"
    assert body["version"]


def test_models_are_listed_and_described(http: httpx.Client) -> None:
    (card,) = http.get("/v1/models").json()["data"]
    assert card.pop("created") > 1_700_000_000
    assert card.pop("capabilities") == ["chat", "completion", "forms"]
    assert card == {"id": "smollm2-135m", "object": "model", "owned_by": "slmops"}
    assert http.get("/v1/models/smollm2-135m").json()["id"] == "smollm2-135m"
    assert http.get("/v1/models/smollm2-135m:1").json()["id"] == "smollm2-135m:1"


def test_an_unknown_model_is_not_described(http: httpx.Client) -> None:
    for name in ("nobody", "org/nobody", "smollm2-135m:2"):
        assert error_of(http.get(f"/v1/models/{name}"), 404)["code"] == "model_not_found"


def test_loaded_models_show_what_they_hold(http: httpx.Client) -> None:
    http.post("/v1/chat/completions", json=chat_body("hi"))
    (row,) = http.get("/admin/models").json()["data"]
    assert (row["id"], row["state"], row["engine"]) == ("smollm2-135m:1", "ready", "fake")
    assert (row["num_slots"], row["num_leases"], row["num_restarts"]) == (4, 0, 0)
    assert row["resident_bytes"] > 1 << 20
    assert row["idle_since"] > 1_700_000_000
    assert row["pid"] > 1


def test_unload_and_load_by_hand(live: LiveServer, http: httpx.Client) -> None:
    assert http.post("/admin/models/smollm2-135m/unload").json() == {"unloaded": ["smollm2-135m:1"]}
    assert http.get("/admin/models").json()["data"] == []
    assert http.get("/ready").status_code == 200  # it would load again
    error = error_of(http.post("/admin/models/smollm2-135m/unload"), 404)
    assert error["code"] == "model_not_loaded"
    assert http.post("/admin/models/smollm2-135m:1/load").json()["state"] == "ready"
    assert [model.spec.label for model in live.parts.pool.loaded()] == ["smollm2-135m:1"]


def test_an_unknown_model_cannot_be_loaded(http: httpx.Client) -> None:
    assert error_of(http.post("/admin/models/nobody/load"), 404)["code"] == "model_not_found"


def test_the_documentation_is_served(http: httpx.Client) -> None:
    assert "/openapi.json" in http.get("/docs").text


def test_a_slash_at_the_end_means_nothing(http: httpx.Client) -> None:
    assert http.get("/v1/models/").json()["object"] == "list"
    assert http.get("/v1/models/smollm2-135m/").json()["id"] == "smollm2-135m"
    answer = http.post("/v1/chat/completions/", json=chat_body("hi"))
    assert (answer.status_code, answer.history) == (200, [])
    assert error_of(http.get("/v1/nothing/"), 404)["code"] == "unknown_url"


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/version", "/metrics", "/v1/models", "/v1/models/smollm2-135m", "/docs", "/"]
)
def test_head_is_answered_wherever_get_is(http: httpx.Client, path: str) -> None:
    head, whole = http.head(path), http.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


def test_head_is_refused_where_there_is_no_get(http: httpx.Client) -> None:
    assert http.head("/v1/chat/completions").status_code == 405
    assert http.head("/v1/models/nobody").status_code == 404


def test_head_of_a_stream_ends() -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        async def events() -> AsyncIterator[bytes]:
            while True:
                yield b"data: x\n\n"
                await asyncio.sleep(0)

        await StreamingResponse(events())(scope, receive, send)

    sent: list[Message] = []
    is_answered = asyncio.Event()

    async def receive() -> Message:
        await is_answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            is_answered.set()

    scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "method": "HEAD", "path": "/", "headers": []}
    asyncio.run(asyncio.wait_for(PathsAndMethods(endless)(scope, receive, send), 20))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[-1]["body"] == b""
