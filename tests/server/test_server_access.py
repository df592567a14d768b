"""Every route declares the access it requires, and refuses requests without it: missing scopes, foreign pages, undeclared
routes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI

from model_registry.database import Database
from model_registry.keys import KeyStore
from server.app import create_app
from server.http.access import Access, ForeignPage, GuardedRoute, guarded_routes, requires
from server.http.security import OPEN_PATHS
from server.principal import ANONYMOUS, LOCAL, AccessScope, InsufficientScope, Principal
from server.settings.daemon import Settings
from tests.doubles.live_server import call_app, error_of
from tests.server.declared_routes import DeclaredRoute, declared_routes

Make = Callable[..., Settings]
ROUTES = declared_routes(create_app(Settings(engine="fake", home=Path("nowhere"), port=0)))
LISTED = "https://console.example"


def name_of(route: DeclaredRoute) -> str:
    return f"{route.method} {route.path}"


def with_scopes(*scopes: AccessScope) -> Principal:
    return Principal("key-1", "app", frozenset(scopes))


@pytest.fixture
def secrets(tmp_path: Path) -> dict[AccessScope, str]:
    """A key of each scope, in the home of `make_settings`."""
    with Database(tmp_path / "home") as database:
        store = KeyStore(database)
        return {scope: store.create(scope.value, [scope.value]).secret for scope in AccessScope}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_every_route_declares_what_it_needs(route: DeclaredRoute) -> None:
    assert route.access is not None, "declare it by `requires` or `open_to_all`, below the route's decorator"
    assert route.access.is_open == (route.path in OPEN_PATHS)
    if route.method in ("DELETE", "PUT", "PATCH"):
        assert route.access.changes_state


def test_the_openapi_document_has_no_other_routes() -> None:
    document = create_app(Settings(engine="fake", home=Path("nowhere"), port=0)).openapi()
    documented = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    own = {(route.method, route.path.replace(":path}", "}")) for route in ROUTES if route.is_documented}
    assert documented == own


def test_what_declares_nothing_or_is_not_guarded_is_not_served() -> None:
    guarded, plain = APIRouter(route_class=GuardedRoute), APIRouter()

    @guarded.get("/one")
    async def undeclared() -> None: ...

    @plain.get("/two")
    @requires(changes_state=False)
    async def unguarded() -> None: ...

    for router in (guarded, plain):
        with pytest.raises(TypeError, match="must be a GuardedRoute"):
            list(guarded_routes(router.routes))


def test_the_walk_over_the_routes_sees_nested_and_plain_ones() -> None:
    """Else the tests above would pass on anything."""
    app, outer, inner = FastAPI(openapi_url=None), APIRouter(), APIRouter()

    @inner.get("/deep")
    async def deep() -> None: ...

    @app.get("/flat")
    async def flat() -> None: ...

    outer.include_router(inner)
    app.include_router(outer)
    assert {name_of(route) for route in declared_routes(app)} == {"GET /deep", "GET /flat"}
    assert all(route.access is None for route in declared_routes(app))


@pytest.mark.parametrize("needed", AccessScope)
def test_a_scope_lets_in_itself_and_admins(needed: AccessScope) -> None:
    access = Access((needed,), changes_state=False)
    for scope in AccessScope:
        if scope in (needed, AccessScope.ADMIN):
            access.check(with_scopes(scope), None)
        else:
            with pytest.raises(InsufficientScope, match=f"needs the scope `{needed}`; the key 'app' has `{scope}`"):
                access.check(with_scopes(scope), None)
    access.check(LOCAL, None)
    with pytest.raises(InsufficientScope):
        access.check(ANONYMOUS, None)


def test_one_of_several_scopes_suffices() -> None:
    access = Access((AccessScope.INFERENCE, AccessScope.READ), changes_state=False)
    access.check(with_scopes(AccessScope.READ), None)
    with pytest.raises(InsufficientScope, match="`inference` or `read`"):
        access.check(with_scopes(AccessScope.JOBS), None)


def test_a_foreign_page_is_refused_first_and_only_where_something_changes() -> None:
    with pytest.raises(ForeignPage, match="evil"):
        Access((AccessScope.ADMIN,), changes_state=True).check(with_scopes(AccessScope.READ), "http://evil.example")
    Access((AccessScope.READ,), changes_state=False).check(with_scopes(AccessScope.READ), "http://evil.example")


def test_every_route_refuses_every_key_without_its_scope(make_settings: Make, secrets: dict[AccessScope, str]) -> None:
    app = create_app(make_settings())
    for route in ROUTES:
        assert route.access is not None
        for scope, secret in secrets.items():
            if not route.access.scopes or scope in (*route.access.scopes, AccessScope.ADMIN):
                continue
            error = error_of(call_app(app, route.method, filled(route.path), headers=bearer(secret)), 403)
            assert (error["code"], error["type"]) == ("insufficient_scope", "permission_error"), name_of(route)
            assert all(f"`{each}`" in error["message"] for each in (*route.access.scopes, scope))


def test_no_route_answers_without_a_key_but_the_open_ones(make_settings: Make, secrets: dict[AccessScope, str]) -> None:
    app = create_app(make_settings())
    for route in ROUTES:
        response = call_app(app, route.method, filled(route.path))
        assert (response.status_code == 401) == (route.path not in OPEN_PATHS), name_of(route)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_where_there_is_no_route_only_a_key_sees_that(make_settings: Make, secrets: dict[AccessScope, str], method: str) -> None:
    app = create_app(make_settings())
    assert error_of(call_app(app, method, "/nowhere"), 401)["code"] == "invalid_api_key"
    for secret in secrets.values():
        assert error_of(call_app(app, method, "/nowhere", headers=bearer(secret)), 404)["code"] == "unknown_url"
    refused = call_app(app, "PUT", "/v1/files", headers=bearer(secrets[AccessScope.READ]))
    assert error_of(refused, 405)["code"] == "method_not_allowed"


def test_the_body_of_a_refused_request_is_not_read(make_settings: Make, secrets: dict[AccessScope, str]) -> None:
    app = create_app(make_settings())
    read: list[bool] = []

    async def body() -> Any:
        read.append(True)
        yield b"{"

    response = call_app(app, "POST", "/admin/jobs", headers=bearer(secrets[AccessScope.READ]), content=body())
    assert error_of(response, 403)["code"] == "insufficient_scope"
    assert read == []


def test_reasons_why_the_model_does_not_answer_are_details(make_settings: Make, secrets: dict[AccessScope, str]) -> None:
    app = create_app(make_settings(engine="onnx", model="nobody"))
    try:
        without = error_of(call_app(app, "GET", "/ready"), 503)["message"]
        assert "nobody" not in without
        assert "scope `read`" in without
        assert "nobody" not in error_of(call_app(app, "GET", "/ready", headers=bearer(secrets[AccessScope.JOBS])), 503)["message"]
        assert "nobody" in error_of(call_app(app, "GET", "/ready", headers=bearer(secrets[AccessScope.READ])), 503)["message"]
    finally:
        app.state.parts.storage.close()


# ---- pages ----

PAGES: dict[str, tuple[dict[str, str], bool, bool]] = {  # headers; may it use what changes nothing; may it change something
    "a program": ({}, True, True),
    "the daemon's own page": ({"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}, True, True),
    "a typed address": ({"Sec-Fetch-Site": "none"}, True, True),
    "a page of a listed origin": ({"Origin": LISTED, "Sec-Fetch-Site": "cross-site"}, True, True),
    "a page of another port": ({"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"}, True, False),
    "a page of another name for loopback": ({"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "cross-site"}, True, False),
    "a page of the web": ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, False, False),
    "a page of no origin": ({"Origin": "null"}, False, False),
    "an image of a page of the web": ({"Sec-Fetch-Site": "cross-site"}, True, False),
    "a link of a page of another port": ({"Sec-Fetch-Site": "same-site"}, True, False),
    "a page of the web that adds an own one": ({"Origin": "http://localhost:8000, https://evil.example"}, False, False),
}
REQUESTS: dict[str, tuple[str, str, dict[str, Any], bool]] = {  # method, path, request, whether it changes something
    "a plan": ("POST", "/admin/job-plans", {"content": "{}", "headers": {"Content-Type": "text/plain"}}, True),
    "a deletion": ("DELETE", "/v1/files/file-1", {}, True),
    "an upload": ("POST", "/v1/files", {"files": {"file": ("a.jsonl", b"{}")}}, True),
    "a load": ("POST", "/admin/models/nobody/load", {}, True),
    "a new key": ("POST", "/admin/keys", {"json": {}}, True),  # whose name is missing: a key would lock the app for the others
    "a list": ("GET", "/admin/models", {}, False),
    "an inference": ("POST", "/v1/completions", {"content": "{}"}, False),
    "a probe": ("GET", "/health", {}, False),
}


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, FastAPI]:
    """One without keys and one with a key: by whether it has any."""

    def made(api_key: str | None) -> FastAPI:
        home = tmp_path_factory.mktemp("home")
        return create_app(Settings(engine="fake", home=home, port=0, cors_origins=[LISTED], api_key=api_key))

    return {False: made(None), True: made("k")}


@pytest.mark.parametrize("is_locked", [False, True], ids=["without keys", "with a key"])
@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("page", PAGES)
def test_which_page_may_do_what(apps: dict[bool, FastAPI], page: str, request_name: str, is_locked: bool) -> None:
    page_headers, may_use, may_change = PAGES[page]
    method, path, request, changes = REQUESTS[request_name]
    headers = request.get("headers", {}) | page_headers | (bearer("k") if is_locked else {})
    response = call_app(apps[is_locked], method, path, **request | {"headers": headers})
    is_refused = response.status_code == 403
    assert is_refused != (may_change if changes else may_use), response.text
    if is_refused:
        assert error_of(response, 403)["code"] == "origin_not_allowed"
    else:
        assert response.status_code in (200, 400, 404), response.text


@pytest.mark.parametrize("route", [route for route in ROUTES if route.access and route.access.changes_state], ids=name_of)
def test_no_route_that_changes_something_takes_it_from_a_page_of_another_port(
    apps: dict[bool, FastAPI], route: DeclaredRoute
) -> None:
    page = {"Origin": "http://localhost:3000"}
    response = call_app(apps[False], route.method, filled(route.path), headers=page)
    error = error_of(response, 403)
    assert error["code"] == "origin_not_allowed"
    assert "SLMOPS_CORS_ORIGINS" in error["message"]
    assert response.headers["access-control-allow-origin"] == page["Origin"], "the page can read why"


def test_a_wildcard_names_every_page(make_settings: Make) -> None:
    app = create_app(make_settings(cors_origins=["*"]))
    response = call_app(app, "DELETE", "/v1/files/file-1", headers={"Origin": "https://any.example"})
    assert error_of(response, 404)["code"] == "file_not_found"


def test_the_host_check_is_for_daemons_that_need_no_key(make_settings: Make, secrets: dict[AccessScope, str]) -> None:
    app = create_app(make_settings())
    named = {"Host": "slm.example"}
    for headers in (named, named | bearer("slm_wrong")):
        assert error_of(call_app(app, "GET", "/v1/models", headers=headers), 401)["code"] == "invalid_api_key"
    assert call_app(app, "GET", "/health", headers=named).status_code == 200
    found = call_app(app, "GET", "/v1/models", headers=named | bearer(secrets[AccessScope.READ]))
    assert found.status_code == 200, json.dumps(found.json())


def test_a_listed_page_uses_a_key_under_any_host(make_settings: Make, secrets: dict[AccessScope, str]) -> None:
    app = create_app(make_settings(cors_origins=[LISTED]))
    headers = {"Host": "slm.example", "Origin": LISTED}
    preflight = call_app(app, "OPTIONS", "/v1/models", headers=headers | {"Access-Control-Request-Method": "GET"})
    answer = call_app(app, "GET", "/v1/models", headers=headers | bearer(secrets[AccessScope.READ]))
    assert (preflight.status_code, answer.status_code) == (204, 200)
    assert preflight.headers["access-control-allow-origin"] == answer.headers["access-control-allow-origin"] == LISTED


def filled(path: str) -> str:
    """The path with something for each of its parameters, that there is not."""
    return path.replace(":path}", "}").replace("{", "no-").replace("}", "")
