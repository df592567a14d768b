"""Host, Origin, CORS and the API key: what is let in, what is not, and with which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from model_registry.database import Database
from model_registry.keys import KeyStore
from server.app import create_app, why_refused
from server.http.security import OPEN_PATHS, Policy, host_of, is_loopback
from server.settings.daemon import Settings
from tests.doubles.live_server import call_app, error_of

Make = Callable[..., Settings]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.evil.example", "evil.example", "10.0.0.1", "0.0.0.0", "127.0.0.1.evil.example", ""])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("authority", "host"),
    [("a.example:80", "a.example"), ("[::1]:80", "::1"), ("A.example", "a.example"), ("a:b", None), ("a@b", None), ("a/b", None)],
)
def test_host_of_an_authority(authority: str, host: str | None) -> None:
    assert host_of(authority) == host


@pytest.mark.parametrize(
    ("bound_to", "allowed_hosts", "authority", "is_allowed"),
    [
        ("127.0.0.1", (), "localhost:8000", True),
        ("127.0.0.1", (), "127.0.0.1:1", True),
        ("127.0.0.1", (), "[::1]:8000", True),
        ("127.0.0.1", (), "evil.example:8000", False),
        ("127.0.0.1", (), "10.0.0.5:8000", False),
        ("127.0.0.1", (), "localhost.evil.example", False),
        ("127.0.0.1", ("box.example",), "box.example:8000", True),
        ("127.0.0.1", ("*.example",), "box.example", True),
        ("127.0.0.1", ("*.example",), "example", False),
        ("127.0.0.1", ("*",), "anything", True),
        ("0.0.0.0", (), "10.0.0.5:8000", True),
        ("0.0.0.0", (), "[fe80::1]:8000", True),
        ("0.0.0.0", (), "evil.example", False),
        ("0.0.0.0", ("slmops",), "slmops:8000", True),
        ("box.example", (), "box.example:8000", True),
    ],
)
def test_hosts(make_settings: Make, bound_to: str, allowed_hosts: tuple[str, ...], authority: str, is_allowed: bool) -> None:
    settings = make_settings(host=bound_to, allowed_hosts=allowed_hosts, api_key="k")
    assert Policy.of(settings).allows_host(authority) is is_allowed


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("http://localhost:3000", True),
        ("https://127.0.0.1", True),
        ("http://[::1]:5", True),
        ("http://evil.example", False),
        ("https://console.example", True),
        ("http://console.example", False),
        ("http://10.0.0.5:8000", True),
        ("http://10.0.0.5:9000", False),
        ("null", False),
        ("file://", False),
        ("http://", False),
        ("http://[", False),
        ("http://[::1]x:y", False),
    ],
)
def test_origins(make_settings: Make, origin: str, is_allowed: bool) -> None:
    policy = Policy.of(make_settings(cors_origins=["https://console.example/"]))
    assert policy.allows_origin(origin, "10.0.0.5:8000") is is_allowed


def test_a_rebound_host_is_refused_with_the_remedy(make_settings: Make) -> None:
    error = error_of(call_app(create_app(make_settings()), "GET", "/v1/models", headers={"Host": "evil.example"}), 403)
    assert error["code"] == "host_not_allowed"
    assert "SLMOPS_ALLOWED_HOSTS" in error["message"]


def test_a_page_of_another_origin_is_refused(make_settings: Make) -> None:
    headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    response = call_app(create_app(make_settings()), "POST", "/v1/chat/completions", headers=headers, content="{}")
    assert error_of(response, 403)["code"] == "origin_not_allowed"
    assert "access-control-allow-origin" not in response.headers


def test_an_allowed_origin_gets_cors_headers_on_answers_and_errors(make_settings: Make) -> None:
    app = create_app(make_settings())
    for path in ("/v1/models", "/nowhere"):
        response = call_app(app, "GET", path, headers={"Origin": "http://localhost:3000"})
        assert response.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert response.headers["vary"] == "Origin"


def test_an_allowed_page_can_read_the_refusals_of_every_layer(make_settings: Make) -> None:
    page = {"Origin": "http://localhost:3000"}
    locked = call_app(create_app(make_settings(api_key="k")), "GET", "/v1/models", headers=page)
    error_of(locked, 401)
    app = create_app(make_settings())
    app.state.parts.lifecycle.drain()
    draining = call_app(app, "GET", "/v1/models", headers=page)
    error_of(draining, 503)
    for response in (locked, draining):
        assert response.headers.get_list("access-control-allow-origin") == ["http://localhost:3000"]
        assert "Retry-After" in response.headers["access-control-expose-headers"]


def test_an_origin_that_is_no_address_is_refused(make_settings: Make) -> None:
    response = call_app(create_app(make_settings()), "GET", "/v1/models", headers={"Origin": "http://["})
    assert error_of(response, 403)["code"] == "origin_not_allowed"


def test_a_rebound_page_gets_no_cors_headers(make_settings: Make) -> None:
    headers = {"Host": "evil.example", "Origin": "http://evil.example"}
    response = call_app(create_app(make_settings()), "GET", "/v1/models", headers=headers)
    assert error_of(response, 403)["code"] == "host_not_allowed"
    assert "access-control-allow-origin" not in response.headers


def test_a_preflight_passes_without_a_key(make_settings: Make) -> None:
    headers = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, x-thing",
        "Access-Control-Request-Private-Network": "true",
    }
    response = call_app(create_app(make_settings(api_key="k")), "OPTIONS", "/v1/chat/completions", headers=headers)
    assert response.status_code == 204
    assert response.headers.get_list("access-control-allow-origin") == ["http://localhost:3000"]
    assert "POST" in response.headers["access-control-allow-methods"]
    assert response.headers["access-control-allow-headers"] == "authorization, x-thing"
    assert response.headers["access-control-allow-private-network"] == "true"


KEYS = ({"Authorization": "Bearer k"}, {"x-api-key": "k"})


@pytest.mark.parametrize("bound_to", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("key", KEYS, ids=("bearer", "x-api-key"))
def test_a_valid_key_works_under_any_host_name(make_settings: Make, bound_to: str, key: dict[str, str]) -> None:
    """As behind a proxy that passes its own name on."""
    app = create_app(make_settings(host=bound_to, api_key="k"))
    headers = {"Host": "slm.example.org", "X-Forwarded-Host": "other.example", "X-Forwarded-For": "203.0.113.9"}
    assert call_app(app, "GET", "/v1/models", headers=headers | key).status_code == 200
    page = headers | key | {"Origin": "https://slm.example.org", "Sec-Fetch-Site": "same-origin"}
    assert call_app(app, "POST", "/admin/models/nobody/unload", headers=page).status_code == 404


@pytest.mark.parametrize("bound_to", ["127.0.0.1", "0.0.0.0"])
def test_where_keys_are_needed_a_request_without_one_is_about_the_key_not_the_host(make_settings: Make, bound_to: str) -> None:
    app = create_app(make_settings(host=bound_to, api_key="k"))
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        response = call_app(app, "GET", "/v1/models", headers={"Host": "slm.example.org", **headers})
        assert error_of(response, 401)["code"] == "invalid_api_key"
    for path in OPEN_PATHS:  # a probe, or a browser's first request
        assert call_app(app, "GET", path, headers={"Host": "slm.example.org"}).status_code in (200, 503)


def test_a_preflight_of_a_listed_page_passes_under_another_host_name(make_settings: Make) -> None:
    app = create_app(make_settings(api_key="k", cors_origins=["https://console.example"]))
    for origin in ("https://console.example", "https://slm.example.org"):
        headers = {"Host": "slm.example.org", "Origin": origin, "Access-Control-Request-Method": "POST"}
        response = call_app(app, "OPTIONS", "/v1/chat/completions", headers=headers)
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (204, origin)


@pytest.mark.parametrize("header", ["X-Forwarded-Host", "X-Host", "Forwarded"])
def test_a_forwarded_host_is_never_trusted(make_settings: Make, header: str) -> None:
    value = "host=localhost" if header == "Forwarded" else "localhost"
    response = call_app(create_app(make_settings()), "GET", "/v1/models", headers={"Host": "evil.example", header: value})
    assert error_of(response, 403)["code"] == "host_not_allowed"
    forged = {"Host": "127.0.0.1", "Origin": "https://evil.example", header: value.replace("localhost", "evil.example")}
    assert error_of(call_app(create_app(make_settings()), "GET", "/v1/models", headers=forged), 403)["code"] == "origin_not_allowed"


def test_a_preflight_of_another_origin_is_refused(make_settings: Make) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    error_of(call_app(create_app(make_settings()), "OPTIONS", "/v1/chat/completions", headers=headers), 403)


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer ", "k", "Basic k", "Bearer kk", "Bearer ké"])
def test_a_wrong_key_is_refused(make_settings: Make, authorization: str | None) -> None:
    headers: Any = {"Authorization": authorization.encode()} if authorization else {}
    response = call_app(create_app(make_settings(api_key="k")), "GET", "/v1/models", headers=headers)
    assert error_of(response, 401)["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/redoc", "/docs/nothing", "/admin/models", "/nowhere"])
def test_everything_but_probes_and_pages_needs_the_key(make_settings: Make, path: str) -> None:
    app = create_app(make_settings(api_key="k"))
    error_of(call_app(app, "GET", path), 401)
    assert call_app(app, "GET", path, headers={"Authorization": "Bearer k"}).status_code != 401


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
def test_probes_and_pages_are_open(make_settings: Make, path: str) -> None:
    assert call_app(create_app(make_settings(api_key="k")), "GET", path).status_code != 401


def test_a_request_id_is_kept_when_sound_and_made_up_when_not(make_settings: Make) -> None:
    app = create_app(make_settings())
    assert call_app(app, "GET", "/health", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    made_up = call_app(app, "GET", "/health", headers={"X-Request-Id": "a b\x1b[31m"}).headers["x-request-id"]
    assert made_up.startswith("req_")
    refused = call_app(app, "GET", "/health", headers={"Host": "evil.example", "X-Request-Id": "mine-2"})
    assert refused.headers["x-request-id"] == "mine-2"


@pytest.mark.parametrize(("host", "key", "is_refused"), [("0.0.0.0", None, True), ("0.0.0.0", "k", False), ("::1", None, False)])
def test_listening_beyond_loopback_needs_a_key(make_settings: Make, host: str, key: str | None, is_refused: bool) -> None:
    settings = make_settings(host=host, api_key=key)
    refusal = why_refused(settings, KeyStore(Database(settings.home)))
    assert (refusal is not None) is is_refused
    assert refusal is None or "SLMOPS_API_KEY" in refusal
