"""`/admin/models` with the real app, real workers and the fake engine: load, reload, unload, reset, and the list."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from runtime.pool import breaker
from runtime.pool.loaded_model import LoadedModel, LoadSpec, ModelState
from runtime.pool.model_pool import ModelPool
from server.app import create_app
from server.settings.daemon import Settings
from tests.doubles.fake_worker import FakeWorkers
from tests.doubles.live_server import LiveServer, call_app, chat_body, error_of, events_of

CHAT = "/v1/chat/completions"
ADMIN = "/admin/models"
MODEL = "smollm2-135m"
SLOWLY = "[[count: 60]][[delay: 0.01]]"
ENDLESS = "[[endless]][[delay: 0.002]]"
WAIT_S = 20

Serve = Callable[..., httpx.Client]


@pytest.fixture
def serve(make_settings: Callable[..., Settings]) -> Iterator[Serve]:
    """Starts a server of its own with these settings; the default model is loaded."""
    servers: list[LiveServer] = []

    def start(**settings: Any) -> httpx.Client:
        servers.append(LiveServer(make_settings(num_slots=4, **settings)).__enter__())
        return httpx.Client(base_url=servers[-1].url, timeout=WAIT_S, trust_env=False)

    yield start
    for server in servers:
        server.__exit__()


def loaded(http: httpx.Client) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = http.get(ADMIN).json()["data"]
    return rows


def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, what


# ---- load ----


def test_keep_alive_and_pin_hold_from_the_load_on(serve: Serve) -> None:
    with serve() as http:
        row = http.post(f"{ADMIN}/{MODEL}/load", json={"keep_alive": "1h", "pin": True}).json()
        assert (row["keep_alive_s"], row["pinned"], row["expires_at"]) == (3600, True, None)
        http.post(f"{ADMIN}/{MODEL}/load", json={"pin": False})
        (row,) = loaded(http)
        assert row["expires_at"] - row["idle_since"] == pytest.approx(3600, abs=1)
        http.post(f"{ADMIN}/{MODEL}/unload")
        http.post(CHAT, json=chat_body("hi"))
        assert [(row["keep_alive_s"], row["pinned"]) for row in loaded(http)] == [(3600, False)]


@pytest.mark.parametrize(
    ("body", "param"),
    [({"keep_alive": "soon"}, "keep_alive"), ({"pin": "perhaps"}, "pin"), ({"num_slots": 2}, "num_slots"), ([], "body")],
)
def test_a_bad_load_is_refused_by_name(http: httpx.Client, body: Any, param: str | None) -> None:
    assert error_of(http.post(f"{ADMIN}/{MODEL}/load", json=body), 400)["param"] == param


# ---- reload ----


def test_a_reload_changes_options_and_no_stream_breaks(serve: Serve) -> None:
    with serve() as http:
        (before,) = loaded(http)
        with http.stream("POST", CHAT, json=chat_body(SLOWLY, stream=True)) as response:
            events = events_of(response)
            next(events)
            row = http.post(f"{ADMIN}/{MODEL}/reload", json={"num_slots": 2, "context_length": 512, "replicas": 2}).json()
            assert (row["state"], row["num_slots"], row["context_length"], len(row["replicas"])) == ("ready", 4, 512, 2)
            assert row["pid"] != before["pid"]
            assert http.post(CHAT, json=chat_body("meanwhile")).status_code == 200
            rest = list(events)
        assert rest[-1] == "[DONE]"
        assert rest[-2]["choices"][0]["finish_reason"] == "stop"
        until(lambda: len(loaded(http)) == 1, "the old workers stayed")


def test_what_a_reload_changed_holds_for_the_next_load_and_the_next_reload(serve: Serve) -> None:
    with serve() as http:
        http.post(f"{ADMIN}/{MODEL}/reload", json={"context_length": 512})
        http.post(f"{ADMIN}/{MODEL}/unload")
        http.post(CHAT, json=chat_body("hi"))
        assert [row["context_length"] for row in loaded(http)] == [512]
        row = http.post(f"{ADMIN}/{MODEL}:1/reload", json={"num_slots": 3}).json()
        assert (row["context_length"], row["num_slots"]) == (512, 3)


def test_a_reload_without_changes_makes_new_workers(serve: Serve) -> None:
    with serve() as http:
        (before,) = loaded(http)
        row = http.post(f"{ADMIN}/{MODEL}/reload").json()
        assert (row["num_slots"], row["pid"] != before["pid"]) == (before["num_slots"], True)


def test_a_reload_loads_what_is_not_loaded(serve: Serve) -> None:
    with serve() as http:
        http.post(f"{ADMIN}/{MODEL}/unload")
        assert http.post(f"{ADMIN}/{MODEL}/reload", json={"num_slots": 2}).json()["num_slots"] == 2


def test_a_reload_that_is_not_kept_is_answered_all_the_same(serve: Serve) -> None:
    with serve() as http:
        assert http.post(f"{ADMIN}/{MODEL}/reload", json={"keep_alive": 0}).json()["keep_alive_s"] == 0
        until(lambda: not loaded(http), "it stayed")


@pytest.mark.parametrize(
    ("changes", "status", "code", "words"),
    [
        ({"num_slots": 0}, 400, "invalid_value", "num_slots"),
        ({"port": 1}, 400, "invalid_value", "port"),
        ({"providers": ["abacus"]}, 400, "invalid_value", "unknown name 'abacus'"),
        pytest.param({"providers": ["x" * 5000]}, 400, "invalid_value", f"unknown name '{'x' * 64}'", id="long"),
        ({"replicas": 50}, 503, "insufficient_memory", "50 x ("),
        ({"engine": "onnx"}, 503, "no_provider", "cannot be placed"),
    ],
)
def test_a_reload_that_cannot_be_is_refused_and_the_old_goes_on(
    serve: Serve, changes: Any, status: int, code: str, words: str
) -> None:
    with serve(memory_budget="1GiB") as http:
        (before,) = loaded(http)
        error = error_of(http.post(f"{ADMIN}/{MODEL}/reload", json=changes), status)
        assert error["code"] == code
        assert words in error["message"]
        assert [(row["pid"], row["state"]) for row in loaded(http)] == [(before["pid"], "ready")]
        assert http.post(f"{ADMIN}/{MODEL}/reload").status_code == 200  # as it was, without what was refused


def test_an_unknown_model_cannot_be_managed(http: httpx.Client) -> None:
    for verb in ("load", "reload", "reset"):
        assert error_of(http.post(f"{ADMIN}/nobody/{verb}"), 404)["code"] == "model_not_found"
    assert error_of(http.post(f"{ADMIN}/nobody/unload"), 404)["code"] == "model_not_loaded"


# ---- unload ----


def test_an_unload_with_grace_lets_a_stream_finish(serve: Serve) -> None:
    with serve() as http, http.stream("POST", CHAT, json=chat_body(SLOWLY, stream=True)) as response:
        events = events_of(response)
        next(events)
        assert http.post(f"{ADMIN}/{MODEL}/unload", json={"grace_s": WAIT_S}).json() == {"unloaded": [f"{MODEL}:1"]}
        assert loaded(http) == []
        assert list(events)[-1] == "[DONE]"


def test_an_unload_without_grace_ends_a_stream_with_an_error(serve: Serve) -> None:
    with serve() as http, http.stream("POST", CHAT, json=chat_body(ENDLESS, stream=True)) as response:
        events = events_of(response)
        next(events)
        http.post(f"{ADMIN}/{MODEL}/unload")
        assert "was unloaded while the request ran" in list(events)[-1]["error"]["message"]


@pytest.mark.parametrize("grace_s", [-1, 1e9, "long"])
def test_a_bad_grace_is_refused(http: httpx.Client, grace_s: Any) -> None:
    assert error_of(http.post(f"{ADMIN}/{MODEL}/unload", json={"grace_s": grace_s}), 400)["param"] == "grace_s"


# ---- reset ----


def test_a_model_that_crashes_in_a_row_is_refused_until_it_is_reset(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "RETRY_DELAYS_S", (0.0,))
    with serve() as http:
        for _ in range(breaker.MOST_IN_ROW):
            error_of(http.post(CHAT, json=chat_body("[[crash]]")), 503)
        refused = http.post(CHAT, json=chat_body("hi"))
        error = error_of(refused, 503)
        assert error["code"] == "model_broken"
        assert "exit code 139" in error["message"]
        assert f"/admin/models/{MODEL}:1/reset" in error["message"]
        (broken,) = http.get(ADMIN).json()["broken"]
        assert broken["id"] == f"{MODEL}:1"
        assert "times in a row" in broken["why"]
        assert int(refused.headers["retry-after"]) > 200
        assert "failed 5 times" in error_of(http.get("/ready"), 503)["message"]
        assert http.post(f"{ADMIN}/{MODEL}/reset").json() == {"reset": f"{MODEL}:1"}
        assert http.get("/ready").status_code == 200
        assert http.post(CHAT, json=chat_body("hi")).status_code == 200


# ---- the list ----


def test_the_list_shows_each_models_place_and_the_budget(serve: Serve) -> None:
    with serve(memory_budget="1GiB", max_loaded_models=3, replicas=2, keep_alive="5m") as http:
        until(lambda: {each["state"] for each in loaded(http)[0]["replicas"]} == {"ready"}, "a replica did not load")
        body = http.get(ADMIN).json()
    (row,) = body.pop("data")
    charged = body.pop("memory_charged_bytes")
    assert body == {"object": "list", "memory_budget_bytes": 1 << 30, "max_loaded_models": 3, "waiting": [], "broken": []}
    assert 0 < charged == row["charge_bytes"] <= 1 << 30
    assert (row["engine"], row["provider"], row["fallbacks"], row["keep_alive_s"]) == ("fake", "FakeExecutionProvider", [], 300)
    assert (row["num_slots"], row["num_restarts"], len({each["pid"] for each in row["replicas"]})) == (8, 0, 2)
    assert row["expires_at"] - row["idle_since"] == pytest.approx(300, abs=1)
    assert row["loaded_at"] <= row["idle_since"]


def test_a_load_that_waits_for_room_is_reported_and_gets_its_turn(serve: Serve) -> None:
    with serve(max_loaded_models=1, models={"other": {}}) as http, ThreadPoolExecutor() as threads:
        with http.stream("POST", CHAT, json=chat_body(ENDLESS, stream=True)) as response:
            next(events_of(response))
            answer = threads.submit(http.post, CHAT, json=chat_body("hi", model="other"))
            until(lambda: http.get(ADMIN).json()["waiting"] == ["other:1"], "it does not wait")
            assert [row["id"] for row in loaded(http)] == [f"{MODEL}:1"]  # busy, so it stays
        assert answer.result(WAIT_S).status_code == 200
        until(lambda: [row["id"] for row in loaded(http)] == ["other:1"], "the idle model was not evicted")


def test_while_a_model_is_replaced_the_one_that_serves_counts(make_settings: Callable[..., Settings]) -> None:
    """Two of one label: readiness and the scrape see the one that answers."""

    class Reloading(ModelPool):
        def loaded(self) -> tuple[LoadedModel, ...]:
            return tuple(
                LoadedModel(LoadSpec(f"{MODEL}:1", ()), state, None, (), (), size, 0, False, 600, None, None, None)
                for state, size in ((ModelState.READY, 1), (ModelState.LOADING, 2), (ModelState.UNLOADING, 4))
            )

    settings = make_settings()
    app = create_app(settings, pool=Reloading(settings.pool_limits(), FakeWorkers()))
    assert call_app(app, "GET", "/ready").status_code == 200
    scraped = call_app(app, "GET", "/metrics").text.splitlines()
    (charged,) = [line for line in scraped if line.startswith("slmops_model_charged_bytes{")]
    assert charged.endswith("} 1.0")
    assert "slmops_memory_charged_bytes 7.0" in scraped
