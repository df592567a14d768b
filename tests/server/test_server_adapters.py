"""Adapters on a served base, with real workers and OpenAI's client: attached while answers stream, listed, used, detached."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from model_registry.artifacts import StagedVariant
from model_registry.pull import pull
from model_registry.records import Manifest, Precision
from model_registry.registry import open_registry
from server.settings.daemon import Settings
from tests.doubles.kept_homes import KeptHomes
from tests.doubles.live_server import LiveServer
from tests.doubles.peft_folder import random_matrices, write_peft
from tests.doubles.tiny_gguf import Tiny, write_gguf

pytestmark = pytest.mark.model

SIZES = {"q_proj": (64, 64), "v_proj": (32, 64), "up_proj": (96, 64), "down_proj": (64, 96)}
ADMIN = "/admin/models/tiny/adapters"


def publish_adapter(home: Path, folder: Path, name: str, *, seed: int, parent: str = "tiny:1", columns: int = 64) -> None:
    """As a tuning registers it, but for the merged build."""
    sizes = {**SIZES, "q_proj": (64, columns)}
    write_peft(folder / name, random_matrices(sizes, layers=2, rank=4, seed=seed), alpha=8)
    manifest = Manifest(source="job:x", importer="finetune", architecture="llama", context_length=512, parent=parent)
    with open_registry(home) as registry:
        registry.publish(name, manifest, [StagedVariant.adapter(folder / name)])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, kept_homes: KeptHomes) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("adapters")
    home = kept_homes.tiny(folder / "home", tiny=Tiny(context=512))
    publish_adapter(home, folder, "tuned", seed=1)
    publish_adapter(home, folder, "tuned-otherwise", seed=2)
    publish_adapter(home, folder, "of-another", seed=3, parent="huge:1")
    publish_adapter(home, folder, "too-wide", seed=4, columns=128)
    with LiveServer(Settings(home=home, port=0, model="tiny", num_slots=4)) as server:
        yield server


@pytest.fixture
def api(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as api:
        yield api
        for each in api.get(ADMIN).json()["data"]:
            assert api.delete(f"{ADMIN}/{each['name']}").status_code == 200


def completed(api: httpx.Client, model: str, **more: Any) -> httpx.Response:
    requested = {"model": model, "prompt": "the cat in the the", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    return api.post("/v1/completions", json={**requested, **more})


def text(api: httpx.Client, model: str) -> str:
    answer = completed(api, model)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def test_adapters_are_served_beside_their_base(server: LiveServer, api: httpx.Client) -> None:
    before = text(api, "tiny")
    assert completed(api, "tiny:one").status_code == 404
    made = api.post(ADMIN, json={"name": "one", "adapter": "tuned"})
    assert (made.status_code, made.json()) == (
        201,
        {"object": "adapter", "id": "tiny:one", "base": "tiny:1", "name": "one", "adapter": "tuned:1"},
    )
    assert api.post(ADMIN, json={"name": "other", "adapter": "tuned-otherwise:1"}).status_code == 201
    answers = [text(api, name) for name in ("tiny", "tiny:one", "tiny:other")]
    assert answers[0] == before
    assert len(set(answers)) == 3
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused") as client:
        assert {"tiny:one", "tiny:other"} <= {each.id for each in client.models.list()}
        assert client.models.retrieve("tiny:one").id == "tiny:one"
    assert [each["id"] for each in api.get(ADMIN).json()["data"]] == ["tiny:one", "tiny:other"]
    workers = [each["id"] for each in api.get("/admin/models").json()["data"]]
    assert workers.count("tiny:1") == len(workers)  # nobody else was loaded
    assert api.delete(f"{ADMIN}/one").json() == {"id": "tiny:one", "deleted": True}
    assert completed(api, "tiny:one").status_code == 404
    assert text(api, "tiny:other") == answers[2]


def test_nothing_is_lost_while_an_adapter_comes_and_goes(server: LiveServer, api: httpx.Client) -> None:
    over = threading.Event()
    statuses: list[int] = []

    def send() -> None:
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as mine:
            while not over.is_set():
                statuses.append(completed(mine, "tiny", max_tokens=64).status_code)

    senders = [threading.Thread(target=send) for _ in range(3)]
    for thread in senders:
        thread.start()
    made = api.post(ADMIN, json={"name": "one", "adapter": "tuned"}).status_code
    gone = api.delete(f"{ADMIN}/one").status_code
    over.set()
    for thread in senders:
        thread.join()
    assert (made, gone) == (201, 200)
    assert len(statuses) > 3
    assert set(statuses) == {200}


@pytest.mark.parametrize(
    ("requested", "status", "expected_text"),
    [
        ({"name": "x", "adapter": "nobody"}, 404, "nobody"),
        ({"name": "x", "adapter": "tiny"}, 422, "has no adapter"),
        ({"name": "x", "adapter": "of-another"}, 422, "tuned on huge:1"),
        ({"name": "x", "adapter": "too-wide"}, 422, "64 x 128; the model's is 64 x 64"),
        ({"name": "live", "adapter": "tuned"}, 404, "alias"),
        ({"name": "1", "adapter": "tuned"}, 404, "cannot name"),
        ({"name": "x"}, 400, "adapter"),
    ],
)
def test_what_cannot_be_served_is_refused_and_nothing_changes(
    api: httpx.Client, requested: dict[str, str], status: int, expected_text: str
) -> None:
    refused = api.post(ADMIN, json=requested)
    assert refused.status_code == status, refused.text
    assert expected_text in refused.json()["error"]["message"]
    assert api.get(ADMIN).json()["data"] == []
    assert text(api, "tiny")


def test_an_unknown_adapter_or_model_is_not_found(api: httpx.Client) -> None:
    assert api.delete(f"{ADMIN}/nobody").status_code == 404
    assert api.get("/admin/models/nobody/adapters").status_code == 404


def test_names_and_files_in_use_stay(server: LiveServer, api: httpx.Client) -> None:
    from model_registry.errors import InvalidName, ModelInUse

    assert api.post(ADMIN, json={"name": "one", "adapter": "tuned"}).status_code == 201
    assert api.post(ADMIN, json={"name": "one", "adapter": "tuned-otherwise"}).status_code == 404
    with open_registry(server.parts.gateway.settings.home) as registry:
        with pytest.raises(InvalidName, match="adapter"):
            registry.set_alias("tiny", "one", 1)
        with pytest.raises(ModelInUse):
            registry.remove("tuned")


def test_an_adapter_leaves_with_its_base(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with open_registry(home) as registry:
        for layers in (1, 2):
            path = write_gguf(tmp_path / f"{layers}.gguf", Tiny(layers=layers))
            pull(registry, str(path), name="tiny", precision=Precision.FP32)
    publish_adapter(home, tmp_path, "tuned", seed=1)
    with open_registry(home) as registry:
        registry.attach("tiny", "one", "tuned")
        assert [each.version for each in registry.model("tiny").adapters] == ["tuned:1"]
        registry.set_alias("tiny", "live", 2)
        registry.remove("tiny:1", force=True)
        assert registry.model("tiny").adapters == ()
