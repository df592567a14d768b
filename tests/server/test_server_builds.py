"""A version with several builds, over HTTP: what this machine cannot run is passed over, what cannot be loaded makes way."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_registry.artifacts import StagedVariant
from model_registry.progress import SilentProgress
from model_registry.pull import pull
from model_registry.pull.builds import BuildRequest, Builds, make_builds
from model_registry.records import DECODER, Capability, Manifest, Precision
from model_registry.registry import open_registry
from server.settings.daemon import Settings
from tests.doubles.daemon_process import PROGRAM, environment
from tests.doubles.live_server import LiveServer, error_of
from tests.doubles.tiny_gguf import Tiny, write_gguf

COMPLETION = {"prompt": "the cat", "max_tokens": 2}


def built(source: Path, staging: Path) -> Builds:
    requests = (BuildRequest(Precision.FP32), BuildRequest(Precision.INT8))
    return make_builds(requests, source, staging, SilentProgress())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """`tiny`: a build for a provider that is not here, one that is damaged, and a sound one. `vectors`: a model of another kind."""
    folder = tmp_path_factory.mktemp("builds")
    home, source = folder / "home", write_gguf(folder / "tiny.gguf", Tiny(context=512))
    with open_registry(home) as registry:
        with registry.staging() as staging:
            builds = built(source, staging)
            damaged, sound = builds.variants
            shutil.copytree(sound.folder, staging / "qnn")
            (damaged.folder / "model.onnx").write_bytes(b"no graph")
            qnn = StagedVariant(Precision.FP16, "qnn", staging / "qnn")
            manifest = Manifest(str(source), "gguf", "llama", 512, capabilities=builds.joined().capabilities)
            registry.publish("tiny", manifest, [qnn, damaged, sound])
        pull(registry, str(source), name="plain", precision=Precision.INT8)
        with registry.staging() as staging:
            (staging / "model.onnx").write_bytes(b"an encoder")
            manifest = Manifest("file:///vectors", "test", "bert", 512, capabilities=frozenset({Capability.EMBEDDING}))
            registry.publish("vectors", manifest, [StagedVariant(Precision.FP32, "cpu", staging)])
    with LiveServer(Settings(home=home, port=0, model="plain", num_slots=2)) as server:
        yield server


@pytest.fixture
def api(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as api:
        yield api


def capabilities(api: httpx.Client, name: str) -> set[str]:
    return set(api.get(f"/v1/models/{name}").json()["capabilities"])


def test_the_next_build_answers_and_the_list_of_loaded_models_says_why(api: httpx.Client) -> None:
    assert capabilities(api, "tiny") == DECODER - {Capability.CHAT}, "as its manifest allows"
    answer = api.post("/v1/completions", json={"model": "tiny", **COMPLETION})
    assert answer.status_code == 200, answer.text
    row = _row(api, "tiny:1")
    assert (row["state"], row["variant"], row["engine"]) == ("ready", "cpu-int8", "onnx")
    assert [(each["variant"], each["provider"]) for each in row["unused"]] == [("qnn-fp16", "qnn")]
    (*_, last) = row["fallbacks"]
    assert last["variant"] == "cpu-fp32"
    assert last["why"]
    assert set(row["capabilities"]) == capabilities(api, "tiny") == DECODER - {Capability.CHAT}


def test_ps_says_which_builds_are_not_used(server: LiveServer, api: httpx.Client, tmp_path: Path) -> None:
    assert api.post("/v1/completions", json={"model": "tiny", **COMPLETION}).status_code == 200
    variables = environment(tmp_path, {"SLMOPS_PORT": server.url.rpartition(":")[2]})
    run = subprocess.run([*PROGRAM, "ps"], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60, check=True)
    lines = run.stdout.splitlines()
    assert any(line.startswith("tiny:1: cpu-fp32 could not be loaded by CPUExecutionProvider") for line in lines), run.stdout
    assert any(line.startswith("tiny:1: qnn-fp16 is not used (qnn: ") for line in lines), run.stdout
    assert "tiny:1 supports adapters, completion, forms" in lines


def test_what_a_version_does_not_allow_is_refused_without_loading_it(api: httpx.Client) -> None:
    requested: list[tuple[str, dict[str, Any]]] = [
        ("/v1/completions", COMPLETION),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}]}),
    ]
    for path, body in requested:
        error = error_of(api.post(path, json={"model": "vectors", **body}), 400)
        assert (error["param"], error["code"]) == ("model", "unsupported_capability")
    assert "vectors:1" not in {row["id"] for row in api.get("/admin/models").json()["data"]}
    assert capabilities(api, "vectors") == {"embedding"}


def test_a_model_without_a_chat_template_refuses_conversations_on_every_route(api: httpx.Client) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    for path in ("/v1/chat/completions", "/tokenize", "/v1/chat/completions/input_tokens"):
        error = error_of(api.post(path, json={"model": "plain", "messages": messages}), 400)
        assert (error["param"], error["code"]) == ("messages", "no_chat_template"), path
    assert api.post("/tokenize", json={"model": "plain", "prompt": "Hello"}).status_code == 200


def _row(api: httpx.Client, label: str) -> dict[str, Any]:
    row: dict[str, Any] = next(row for row in api.get("/admin/models").json()["data"] if row["id"] == label)
    return row
