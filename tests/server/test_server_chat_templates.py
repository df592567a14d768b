"""Models whose chat templates do not compile, never end, or have no system role, over HTTP: what does not need them works."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from server.settings.daemon import Settings
from tests.doubles.kept_homes import KeptHomes
from tests.doubles.live_server import LiveServer, error_of
from tests.doubles.tiny_gguf import Tiny

pytestmark = pytest.mark.model

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TURNS
TEMPLATES = {
    "broken": "{% for m in messages %}\n{{ m.content }",
    "refuses": REFUSES,
    "raises": "{{ raise_exception('Not today') }}",
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, kept_homes: KeptHomes) -> Iterator[httpx.Client]:
    def tiny(template: str) -> Tiny:
        return Tiny(metadata={"tokenizer.chat_template": template, "llama.context_length": 1024})

    models = {name: tiny(template) for name, template in TEMPLATES.items()}
    home = kept_homes.tiny(tmp_path_factory.mktemp("templates") / "home", **models)
    settings = Settings(home=home, port=0, model="refuses", memory_budget=2 << 30)
    with LiveServer(settings) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def test_without_a_template_that_compiles_completions_work_and_chat_names_the_line(served: httpx.Client) -> None:
    completion = served.post(COMPLETIONS, json={"model": "broken", "prompt": "Hello", "max_tokens": 2})
    assert completion.status_code == 200, completion.text
    response = served.post(CHAT, json={"model": "broken", **HELLO})
    error = error_of(response, 400)
    assert (error["param"], error["code"]) == ("messages", "chat_template_error")
    assert "does not compile: line 2" in error["message"]
    assert "Retry-After" not in response.headers
    rows = {row["id"]: row["chat_template_error"] for row in served.get("/admin/models").json()["data"]}
    assert "line 2" in rows["broken:1"]


def test_a_template_that_raises_says_why(served: httpx.Client) -> None:
    error = error_of(served.post(CHAT, json={"model": "raises", **HELLO}), 400)
    assert error["code"] == "chat_template_error"
    assert "Not today" in error["message"]


@pytest.mark.parametrize(
    "fields", [{"tools": [TOOL]}, {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]}]
)
def test_a_template_without_a_system_role_takes_tools_and_instructions(served: httpx.Client, fields: dict[str, Any]) -> None:
    response = served.post(CHAT, json={"model": "refuses", **HELLO, **fields})
    assert response.status_code == 200, response.text
