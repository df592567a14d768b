"""`/admin/registry` beside real workers: an alias moves while answers stream, and what is loaded is not removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from model_registry.pull import pull
from model_registry.records import Precision
from model_registry.registry import open_registry
from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer, error_of, events_of
from tests.doubles.tiny_gguf import Tiny, write_gguf

pytestmark = pytest.mark.model
MODEL = "/admin/registry/models/tiny"
NUM_TOKENS = 200
PROMPT = {"model": "tiny", "prompt": "the cat", "max_tokens": NUM_TOKENS, "temperature": 0, "ignore_eos": True}


@pytest.fixture
def http(tmp_path: Path) -> Iterator[httpx.Client]:
    """Serves tiny:1, which is live; there is tiny:2, too."""
    with open_registry(tmp_path / "home") as registry:
        for layers in (1, 2):
            source = write_gguf(tmp_path / f"{layers}.gguf", Tiny(layers=layers, context=512))
            pull(registry, str(source), name="tiny", precision=Precision.FP32)
        registry.set_alias("tiny", "live", 1)
    settings = Settings(home=tmp_path / "home", port=0, model="tiny", num_slots=4)
    with LiveServer(settings) as server, httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client:
        yield client


def loaded(http: httpx.Client) -> set[str]:
    return {model["id"] for model in http.get("/admin/models").json()["data"]}


def test_an_alias_moves_while_an_answer_streams(http: httpx.Client) -> None:
    before = http.post("/v1/completions", json=PROMPT).json()["choices"][0]["text"]
    with http.stream("POST", "/v1/completions", json={**PROMPT, "stream": True}) as response:
        events = events_of(response)
        first = next(events)
        assert http.put(f"{MODEL}/aliases/live", json={"version": 2}).status_code == 200
        *chunks, end = [first, *events]
    assert end == "[DONE]"
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == before
    assert http.post("/v1/completions", json=PROMPT).json()["choices"][0]["text"] != before
    assert loaded(http) == {"tiny:1", "tiny:2"}
    assert http.put(f"{MODEL}/aliases/live", json={"version": "previous"}).json()["version"] == 1
    assert http.post("/v1/completions", json=PROMPT).json()["choices"][0]["text"] == before


def test_what_is_loaded_is_removed_once_it_is_not(http: httpx.Client) -> None:
    for path in (MODEL, f"{MODEL}/versions/1", f"{MODEL}/versions/live"):
        assert error_of(http.delete(path), 409)["code"] == "model_in_use"
    assert http.delete(f"{MODEL}/versions/2").status_code == 409  # `previous` points to it
    assert http.delete(f"{MODEL}/aliases/previous").status_code == 200
    assert http.delete(f"{MODEL}/versions/2").json()["removed"] == ["tiny:2"]
    assert http.post("/v1/completions", json=PROMPT).status_code == 200
    assert http.post("/admin/models/tiny/unload").status_code == 200
    assert http.delete(MODEL).json()["removed"] == ["tiny:1"]
    assert error_of(http.post("/v1/completions", json=PROMPT), 404)["code"] == "model_not_found"
