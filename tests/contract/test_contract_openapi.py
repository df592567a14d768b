"""The server keeps to its own OpenAPI document: every answer to any request, sound or not, is one that it documents.

schemathesis makes the requests: the limits of every schema, what violates it, wrong methods and content types, and random data.
It checks statuses, content types, bodies and headers, that what the document forbids is refused, and that nothing is a 5xx.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import load_all_checks
from schemathesis.generation.meta import TestPhase
from schemathesis.specs.openapi.checks import positive_data_acceptance

from server.app import create_app
from server.http.security import OPEN_PATHS
from server.settings.daemon import Settings
from tests.contract.conversation import assert_lives
from tests.contract.document import MODEL, OTHER, read_document
from tests.doubles.live_server import LiveServer, call_app, error_of
from tests.effort import drawn

load_all_checks()
Case = schemathesis.Case[Any]
CONFIG = schemathesis.Config.from_dict(
    {
        "seed": 1,
        # A list beyond its limit may make a body beyond its own: the document has 413 for that.
        "checks": {"negative_data_rejection": {"expected-statuses": ["4xx", "5xx"]}},
        "operations": [
            {"include-tag": "not implemented", "checks": {"not_a_server_error": {"expected-statuses": ["4xx", "501"]}}},
            {  # the limits of a chat's body, which these take too, are tested there
                "include-path": ["/tokenize", "/v1/chat/completions/input_tokens"],
                "phases": {"coverage": {"enabled": False}},
            },
        ],
    }
)
API = schemathesis.openapi.from_dict(read_document(), config=CONFIG)
KEY = "the-key-of-this-server"
HELD: dict[str, Any] = {
    "model": MODEL,
    "engine": "fake",
    "replicas": 1,
    "num_slots": 2,
    "context_length": 512,
    "threads": 1,
    "reference": "no-such-model",  # a pull would fetch what happens to be there
}  # wherever sound


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """With a key already: the first one that is created would lock the other server for the tests that follow."""
    settings = Settings(engine="fake", home=tmp_path_factory.mktemp("locked"), port=0, model=MODEL, api_key=KEY)
    with LiveServer(settings) as server:
        yield server


@API.parametrize()
@settings(
    drawn(40),
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_documented(case: Case, live: LiveServer, locked: LiveServer, cases: Counter[str]) -> None:
    aim(case)
    server, headers = (locked, {"Authorization": f"Bearer {KEY}"}) if case.path.startswith("/admin/keys") else (live, {})
    response = case.call(base_url=server.url, headers=headers, timeout=20)
    cases[f"of the OpenAPI document, answered {response.status_code}"] += 1
    case.validate_response(response, excluded_checks=[positive_data_acceptance])
    if response.status_code == 400 and is_sound(case):
        error = response.json()["error"]
        assert error["param"], f"{case.method} {case.path} refuses what the document allows without naming a field: {error}"


def test_without_the_key_every_route_says_so(tmp_path: Path) -> None:
    document = read_document()
    app = create_app(Settings(engine="fake", home=tmp_path, api_key="secret"))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path not in OPEN_PATHS:
                assert error_of(call_app(app, method.upper(), path), 401)["code"] == "invalid_api_key"
                assert "401" in operation["responses"]


def test_the_server_lives(http: httpx.Client) -> None:
    assert_lives(http)


def is_sound(case: Case) -> bool:
    """Whether the document allows it."""
    assert case.meta is not None
    return case.meta.generation.mode.is_positive


def aim(case: Case) -> None:
    """Sound requests go to models that there are, else nearly all would end with 404; and none may take the machine's memory."""
    assert case.meta is not None
    if not is_sound(case):
        return
    if "name" in case.path_parameters and not (case.path.endswith("/reload") and case.meta.phase.name is TestPhase.COVERAGE):
        case.path_parameters["name"] = OTHER  # a reload starts a process: not for each limit of each setting
    if "model_id" in case.path_parameters:
        case.path_parameters["model_id"] = MODEL
    if isinstance(case.body, dict):
        case.body.update({name: HELD[name] for name, value in case.body.items() if name in HELD and value is not None})
