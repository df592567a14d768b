"""Keys with scopes against a real server: created, used by OpenAI's client and by streams, expired, revoked, named in the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from model_registry.database import Database
from model_registry.keys import KeyStore
from server.app import create_app, why_refused
from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer, call_app, chat_body, error_of, events_of

Make = Callable[..., Settings]
ADMIN = "the-operators-key"
PROMPT = "<|user|>[[reply: ok]]<|assistant|>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(Settings(engine="fake", home=tmp_path_factory.mktemp("home"), port=0, api_key=ADMIN, num_slots=4)) as server:
        yield server


@pytest.fixture
def admin(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False, headers=bearer(ADMIN)) as client:
        for key in client.get("/admin/keys").json()["data"]:
            client.delete(f"/admin/keys/{key['id']}").raise_for_status()
        yield client


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def create(admin: httpx.Client, *scopes: str, name: str = "app", **fields: Any) -> dict[str, Any]:
    made = admin.post("/admin/keys", json={"name": name, "scopes": list(scopes), **fields})
    assert made.status_code == 201, made.text
    body: dict[str, Any] = made.json()
    return body


def test_a_secret_is_shown_once(admin: httpx.Client) -> None:
    made = admin.post("/admin/keys", json={"name": "app", "scopes": ["inference"], "expires_in": "90d"})
    assert made.headers["cache-control"] == "no-store"
    body = made.json()
    assert body["secret"].startswith("slm_")
    assert body["expires_at"] - body["created_at"] == pytest.approx(90 * 86_400, abs=5)
    listed = admin.get("/admin/keys")
    assert body["secret"] not in listed.text
    del body["secret"]
    assert body in listed.json()["data"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"scopes": ["read"]}, "name"),
        ({"name": "a b", "scopes": ["read"]}, "name"),
        ({"name": "a"}, "scopes"),
        ({"name": "a", "scopes": []}, "scopes"),
        ({"name": "a", "scopes": ["everything"]}, "scopes.0"),
        ({"name": "a", "scopes": ["read"], "expires_in": 0}, "expires_in"),
        ({"name": "a", "scopes": ["read"], "expires_in": "soon"}, "expires_in"),
        ({"name": "a", "scopes": ["read"], "secret": "mine"}, "secret"),
    ],
)
def test_a_bad_request_names_its_field(admin: httpx.Client, body: dict[str, Any], param: str) -> None:
    assert error_of(admin.post("/admin/keys", json=body), 400)["param"] == param


def test_names_in_use_and_unknown_keys(admin: httpx.Client) -> None:
    create(admin, "read")
    taken = error_of(admin.post("/admin/keys", json={"name": "app", "scopes": ["read"]}), 409)
    assert (taken["code"], taken["param"]) == ("key_name_taken", "name")
    unknown = error_of(admin.delete("/admin/keys/key-none"), 404)
    assert (unknown["code"], unknown["param"]) == ("key_not_found", "id")


def test_openais_client_with_an_inference_key(server: LiveServer, admin: httpx.Client) -> None:
    secret = create(admin, "inference")["secret"]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=secret, max_retries=0, timeout=30) as client:
        stream = client.completions.create(model="smollm2-135m", prompt=PROMPT, stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == "ok"
        assert client.models.list().data[0].id == "smollm2-135m"
        with pytest.raises(openai.PermissionDeniedError, match="needs the scope `jobs`; the key 'app' has `inference`") as refused:
            client.files.list()
        assert refused.value.code == "insufficient_scope"
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="slm_wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="no such key"),
    ):
        client.models.list()


def test_either_header_carries_the_key(server: LiveServer, admin: httpx.Client) -> None:
    secret = create(admin, "inference")["secret"]
    for headers in ({"x-api-key": secret}, {"X-API-Key": secret}, bearer(secret), {"authorization": f"bearer {secret}"}):
        assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 200, headers
    both = {"x-api-key": secret, "Authorization": "Basic dXNlcjpwYXNz"}
    assert httpx.get(f"{server.url}/v1/models", headers=both).status_code == 200, "a proxy's own password is no key"
    wrong = {"x-api-key": secret, "Authorization": "Bearer wrong"}
    assert error_of(httpx.get(f"{server.url}/v1/models", headers=wrong), 401)["code"] == "invalid_api_key"
    assert error_of(httpx.get(f"{server.url}/v1/models", headers={"x-api-key": "wrong"}), 401)["code"] == "invalid_api_key"


def test_a_stream_that_runs_outlives_its_key_and_the_next_request_does_not(server: LiveServer, admin: httpx.Client) -> None:
    made = create(admin, "inference")
    with httpx.Client(base_url=server.url, timeout=30, headers=bearer(made["secret"])) as client:
        body = chat_body("[[reply: one two three]] [[delay: 0.01]]", stream=True)
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            events = events_of(response)
            next(events)
            revoked = admin.delete("/admin/keys/app").json()
            assert revoked["status"] == "revoked"
            assert list(events)[-1] == "[DONE]"
        error = error_of(client.post("/v1/chat/completions", json=body), 401)
        assert (error["code"], error["type"]) == ("revoked_api_key", "authentication_error")
    assert admin.get("/admin/keys").json()["data"][-1] == revoked


def test_each_end_of_a_key_has_its_words_and_none_describes_the_key(make_settings: Make) -> None:
    settings = make_settings()
    past = datetime.now(UTC) - timedelta(seconds=1)
    with Database(settings.home) as database:
        store = KeyStore(database)
        expired = store.create("expired-name", ["admin"], past)
        revoked = store.create("revoked-name", ["admin"])
        store.revoke(revoked.key.id)
    app = create_app(settings)
    refusals = {}
    for name, headers in {
        "missing": {},
        "unknown": bearer("slm_unknown"),
        "expired": bearer(expired.secret),
        "revoked": bearer(revoked.secret),
    }.items():
        response = call_app(app, "GET", "/v1/models", headers=headers)
        error = error_of(response, 401)
        refusals[name] = error["message"], error["code"]
        assert response.headers["www-authenticate"] == "Bearer"
        assert not any(word in response.text for word in ("-name", "slm_", "key-"))
    assert len({message for message, _ in refusals.values()}) == 4
    assert [code for _, code in refusals.values()] == [
        "invalid_api_key",
        "invalid_api_key",
        "expired_api_key",
        "revoked_api_key",
    ]


def test_the_first_key_locks_a_daemon_that_runs(make_settings: Make) -> None:
    app = create_app(make_settings())
    assert call_app(app, "GET", "/v1/models").status_code == 200
    made = call_app(app, "POST", "/admin/keys", json={"name": "app", "scopes": ["inference"]}).json()
    assert error_of(call_app(app, "GET", "/v1/models"), 401)["code"] == "invalid_api_key"
    assert call_app(app, "GET", "/v1/models", headers=bearer(made["secret"])).status_code == 200
    assert call_app(app, "GET", "/health").status_code == 200
    close(app)


def test_what_another_process_changes_holds_for_a_daemon_that_runs(server: LiveServer) -> None:
    keys = server.parts.storage.keys
    with Database(server.parts.settings.home) as database:
        other = KeyStore(database)
        made = other.create("from-elsewhere", ["read"])
        server.call(keys.refresh())
        assert httpx.get(f"{server.url}/metrics", headers=bearer(made.secret)).status_code == 200
        other.revoke(made.key.id)
        server.call(keys.refresh())
        error = error_of(httpx.get(f"{server.url}/metrics", headers=bearer(made.secret)), 401)
        assert error["code"] == "revoked_api_key"


def test_priority_below_zero_is_for_admins(server: LiveServer, admin: httpx.Client) -> None:
    secret = create(admin, "inference")["secret"]
    with httpx.Client(base_url=server.url, timeout=30, headers=bearer(secret)) as client:
        for path, body in (("/v1/chat/completions", chat_body("hi")), ("/v1/completions", {"prompt": PROMPT})):
            for stream in (False, True):
                error = error_of(client.post(path, json={**body, "stream": stream, "priority": -1}), 403)
                assert (error["code"], error["param"]) == ("insufficient_scope", "priority")
            assert client.post(path, json={**body, "priority": 0}).status_code == 200
            assert client.post(path, json={**body, "priority": 1}).status_code == 200
            assert admin.post(path, json={**body, "priority": -1}).status_code == 200


def test_without_keys_a_local_program_may_go_first(http: httpx.Client) -> None:
    assert http.post("/v1/completions", json={"prompt": PROMPT, "priority": -5}).status_code == 200


def test_the_log_names_the_key_by_its_id(make_settings: Make, caplog: pytest.LogCaptureFixture) -> None:
    settings = make_settings()
    with Database(settings.home) as database:
        store = KeyStore(database)
        made = store.create("app", ["read"])
    app = create_app(settings)
    with caplog.at_level(logging.INFO, "slmops.access"):
        call_app(app, "GET", "/v1/models", headers=bearer(made.secret))
        call_app(app, "GET", "/v1/models", headers=bearer("slm_wrong"))
    used, refused = (record.fields for record in caplog.records)  # type: ignore[attr-defined]
    assert used["key"] == made.key.id
    assert "key" not in refused
    assert (refused["status"], refused["code"]) == (401, "invalid_api_key")
    assert made.secret not in json.dumps([used, refused])


def test_the_log_names_no_key_of_local_programs(make_settings: Make, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(make_settings())
    with caplog.at_level(logging.INFO, "slmops.access"):
        call_app(app, "GET", "/v1/models", headers=bearer("unused"))
    assert "key" not in caplog.records[0].fields  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("scopes", "expires_in", "is_revoked", "is_refused"),
    [
        (["inference"], None, False, False),
        (["admin"], 60, False, False),
        (["admin"], -60, False, True),
        (["admin"], None, True, True),
    ],
)
def test_a_usable_key_allows_listening_beyond_loopback(
    make_settings: Make, scopes: list[str], expires_in: int | None, is_revoked: bool, is_refused: bool
) -> None:
    settings = make_settings(host="0.0.0.0")
    assert why_refused(settings, KeyStore(Database(settings.home))) is not None
    assert not settings.home.exists(), "looking for keys makes no home"
    with Database(settings.home) as database:
        store = KeyStore(database)
        expires = None if expires_in is None else datetime.now(UTC) + timedelta(seconds=expires_in)
        key = store.create("app", scopes, expires).key
        if is_revoked:
            store.revoke(key.id)
    refusal = why_refused(settings, KeyStore(Database(settings.home)))
    assert (refusal is not None) is is_refused
    assert refusal is None or "slmops keys create" in refusal


def test_a_daemon_beyond_loopback_is_never_open(make_settings: Make) -> None:
    """Even when its last key is removed while it serves."""
    settings = make_settings(host="0.0.0.0")
    with Database(settings.home) as database:
        store = KeyStore(database)
        made = store.create("app", ["admin"])
    app = create_app(settings)
    assert call_app(app, "GET", "/v1/models", headers=bearer(made.secret)).status_code == 200
    with Database(settings.home) as database:
        store = KeyStore(database)
        store.remove("app")
    app = create_app(settings)
    assert error_of(call_app(app, "GET", "/v1/models"), 401)["code"] == "invalid_api_key"


def test_no_home_is_made_by_looking_for_keys(tmp_path: Path) -> None:
    create_app(Settings(engine="fake", home=tmp_path / "none", port=0))
    assert not (tmp_path / "none").exists()


def close(app: Any) -> None:
    """What an app without a server opened."""
    app.state.parts.storage.close()
