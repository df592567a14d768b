"""Several models in one daemon, as requests meet them: how long each stays, and what happens when there is no room."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer, chat_body, error_of

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
WAIT_S = 20
BODIES: dict[str, dict[str, Any]] = {CHAT: chat_body("hi"), COMPLETION: {"prompt": "hi"}}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Serves two models, of which one fits."""
    settings = Settings(
        engine="fake", home=tmp_path_factory.mktemp("home"), port=0, model="first", models={"second": {}}, max_loaded_models=1
    )
    with LiveServer(settings) as server:
        yield server


def loaded(http: httpx.Client) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = http.get("/admin/models").json()["data"]
    return rows


def until_loaded(http: httpx.Client, labels: list[str]) -> None:
    deadline = time.monotonic() + WAIT_S
    while (there := [row["id"] for row in loaded(http)]) != labels:
        assert time.monotonic() < deadline, there


# ---- keep_alive ----


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(("written", "seconds"), [("5m", 300), (90, 90), (0.5e3, 500), (-1, -1), ("-1h", -1)])
def test_a_request_says_how_long_its_model_stays(http: httpx.Client, path: str, written: Any, seconds: float) -> None:
    assert http.post(path, json=BODIES[path] | {"keep_alive": written}).status_code == 200
    (row,) = loaded(http)
    assert row["keep_alive_s"] == seconds
    assert (row["expires_at"] is None) == (seconds < 0)


def test_a_request_that_says_nothing_changes_nothing(http: httpx.Client) -> None:
    http.post(CHAT, json=chat_body("hi", keep_alive="7m"))
    http.post(CHAT, json=chat_body("hi", keep_alive=None))
    assert [row["keep_alive_s"] for row in loaded(http)] == [420]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_zero_unloads_after_the_answer(http: httpx.Client, path: str, stream: bool) -> None:
    answer = http.post(path, json=BODIES[path] | {"keep_alive": 0, "stream": stream})
    assert answer.status_code == 200
    assert "error" not in answer.text
    until_loaded(http, [])


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("written", ["soon", "", True, [], {"seconds": 5}, 1e300])
def test_a_bad_keep_alive_is_refused_by_name(http: httpx.Client, path: str, written: Any) -> None:
    error = error_of(http.post(path, json=BODIES[path] | {"keep_alive": written}), 400)
    assert (error["param"], error["code"]) == ("keep_alive", "invalid_value")
    assert '"10m"' in error["message"]


# ---- room ----


def test_both_models_are_listed_and_answer_in_turn(http: httpx.Client) -> None:
    assert [card["id"] for card in http.get("/v1/models").json()["data"]] == ["first", "second"]
    for name in ("first", "second", "first"):
        answer = http.post(CHAT, json=chat_body("hi", model=name))
        assert (answer.status_code, answer.json()["model"]) == (200, name)
        assert [row["id"] for row in loaded(http)] == [f"{name}:1"]


def test_a_pinned_model_does_not_make_room(http: httpx.Client) -> None:
    http.post("/admin/models/first/load", json={"pin": True})
    error = error_of(http.post(CHAT, json=chat_body("hi", model="second")), 503)
    assert error["code"] == "insufficient_memory"
    assert "first:1" in error["message"]
    assert "(pinned); 1 of at most 1 models are loaded (max_loaded_models)" in error["message"]
    http.post("/admin/models/first/load", json={"pin": False})
    assert http.post(CHAT, json=chat_body("hi", model="second")).status_code == 200


def test_a_model_that_cannot_fit_is_refused_with_the_arithmetic(make_settings: Callable[..., Settings]) -> None:
    with LiveServer(make_settings(memory_budget="50MiB")) as server, httpx.Client(base_url=server.url, trust_env=False) as http:
        refused = http.post(CHAT, json=chat_body("hi"))
        error = error_of(refused, 503)
        assert error["code"] == "insufficient_memory"
        assert "Retry-After" not in refused.headers, "there never will be room"
        assert "smollm2-135m:1 needs 64 MiB = (64 MiB for weights and work + 0 MiB for one row of KV)" in error["message"]
        assert "of the memory budget of 50 MiB, 50 MiB are free beside no other model" in error["message"]
        assert "Raise memory_budget" in error["message"]
        assert error_of(http.get("/ready"), 503)["message"] == error["message"]
        assert http.get("/health").status_code == 200
        assert loaded(http) == []


# ---- at the start ----


def test_pinned_models_are_loaded_and_unknown_ones_are_reported(
    make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(model="first", models={"second": {"pin": True}, "first:7": {"num_slots": 2}})
    with (
        caplog.at_level(logging.WARNING, "slmops.gateway"),
        LiveServer(settings) as server,
        httpx.Client(base_url=server.url, trust_env=False) as http,
    ):
        assert {row["id"]: row["pinned"] for row in loaded(http)} == {"first:1": False, "second:1": True}
    assert caplog.records == []


def test_settings_of_a_model_that_is_not_here_are_reported_at_the_start(
    make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(engine="onnx", model="nobody", models={"absent": {"pin": True}})
    with caplog.at_level(logging.WARNING, "slmops.gateway"), LiveServer(settings):
        pass
    reported = {record.getMessage(): record.fields for record in caplog.records}
    assert reported["settings for an unknown model"]["model"] == "absent"
    assert "slmops catalog" in reported["settings for an unknown model"]["why"]
