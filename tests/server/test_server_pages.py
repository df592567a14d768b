"""What browsers open: the front page, the API's description, its assets. Nothing comes from another host."""

from __future__ import annotations

import hashlib
import logging
import re
from base64 import b64encode
from collections.abc import Callable

import pytest

from server.app import create_app
from server.pages.page import content_security_policy
from server.settings.daemon import Settings
from tests.doubles.live_server import call_app, error_of

Make = Callable[..., Settings]
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
NAMED = re.compile(r'(?:src|href|url)\s*[=:]\s*["\']([^"\']+)')
PAGES = ("/", "/docs")


def test_the_root_is_json_for_programs_and_a_page_for_browsers(make_settings: Make) -> None:
    app = create_app(make_settings(api_key="k"))
    found = call_app(app, "GET", "/")
    assert found.json()["name"] == "slmops"
    assert {"/docs", "/metrics", "/v1/models"} <= set(found.json()["links"].values())
    page = call_app(app, "GET", "/", headers=BROWSER)
    assert page.headers["content-type"].startswith("text/html")
    assert found.headers["vary"] == page.headers["vary"] == "Accept"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_names_nothing_of_another_host_and_all_that_it_names_is_here(make_settings: Make, path: str) -> None:
    app = create_app(make_settings(api_key="k"))
    text = call_app(app, "GET", path, headers=BROWSER).text
    addresses = set(NAMED.findall(text))
    assert addresses
    for address in addresses:
        if not address.startswith("data:"):
            assert not re.match(r"[a-z]+:|//", address), f"{path} names {address}"
            answer = call_app(app, "GET", f"/{address.lstrip('/')}")
            assert answer.status_code in (200, 401, 503), f"{path} names {address}"  # 401: what needs a key
    assert re.findall(r"https?://(?!localhost|www\.w3\.org)", text) == []


def test_assets_of_the_description_are_whole(make_settings: Make) -> None:
    app = create_app(make_settings())
    script = call_app(app, "GET", "/docs/swagger-ui-bundle.js")
    assert "SwaggerUIBundle" in script.text[:2000]
    assert script.headers["content-type"].startswith("text/javascript")
    style = call_app(app, "GET", "/docs/swagger-ui.css")
    assert style.headers["content-type"].startswith("text/css")
    assert "@import" not in style.text
    assert re.findall(r"url\(\s*['\"]?https?:", style.text) == []


@pytest.mark.parametrize("path", PAGES)
def test_a_page_may_run_its_own_scripts_only(make_settings: Make, path: str) -> None:
    response = call_app(create_app(make_settings()), "GET", path, headers=BROWSER)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    (script_src,) = [each for each in policy.split("; ") if each.startswith("script-src")]
    assert "unsafe" not in script_src
    for script in re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL):
        assert f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in script_src


def test_policy_of_a_page_without_inline_parts() -> None:
    assert "script-src 'none'" in content_security_policy("<p>text</p>", {})
    assert "script-src 'self';" in content_security_policy("<p>text</p>", {"script-src": "'self'"})


def test_the_document_says_how_a_key_is_sent_and_what_each_route_needs(make_settings: Make) -> None:
    document = call_app(create_app(make_settings(api_key="k")), "GET", "/openapi.json").json()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert {"bearer": []} in chat["security"]
    assert "`inference`" in chat["description"]
    assert "`admin`" in document["paths"]["/admin/keys"]["get"]["description"]
    assert "security" not in document["paths"]["/health"]["get"]


def test_refused_requests_are_logged_and_counted_under_their_route(make_settings: Make, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(make_settings(api_key="k"))
    refused = (
        ("GET", "/v1/models/any/name", "/v1/models/{model_id:path}"),
        ("PATCH", "/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/admin/models/m/load", "/admin/models/{name}/load"),
        ("GET", "/wp-admin/x.php", "unmatched"),
    )
    with caplog.at_level(logging.INFO, "slmops.access"):
        for method, path, _ in refused:
            error_of(call_app(app, method, path), 401)
    logged = [record.__dict__["fields"]["route"] for record in caplog.records if record.name == "slmops.access"]
    assert logged == [route for _, _, route in refused]
    counted = app.state.parts.metrics.exposition().decode()
    assert 'route="/v1/models/{model_id:path}"' in counted
    assert "any/name" not in counted
