"""Files and jobs belong to the key that made them: for other keys they do not exist, admins see all."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from model_registry.database import Database
from model_registry.keys import KeyStore
from model_registry.uploads import FileStore
from server.app import create_app
from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer, error_of

ROW = b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}\n'


@dataclass(frozen=True)
class Callers:
    """Two keys with the scope jobs, and an admin."""

    one: httpx.Client
    two: httpx.Client
    admin: httpx.Client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("home")
    with Database(home) as database:
        FileStore(database).add(io.BytesIO(b"old"), "before_keys.jsonl", "fine-tune")
    settings = Settings(engine="fake", home=home, port=0, jobs={"max_running": 0})
    with LiveServer(settings, create_app(settings, tasks="tests.doubles.inert_tasks")) as server:
        yield server


@pytest.fixture(scope="module")
def secrets(server: LiveServer) -> dict[str, str]:
    """Created before by a local program, one file and one job."""
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as local:
        upload(local, "local.jsonl")
        create(local)
    with Database(server.parts.settings.home) as database:
        store = KeyStore(database)
        made = {name: store.create(name, [scope]).secret for name, scope in (("one", "jobs"), ("two", "jobs"), ("admin", "admin"))}
    server.call(server.parts.storage.keys.refresh())
    return made


@pytest.fixture(scope="module")
def callers(server: LiveServer, secrets: dict[str, str]) -> Iterator[Callers]:
    clients = {
        name: httpx.Client(base_url=server.url, timeout=60, trust_env=False, headers={"Authorization": f"Bearer {secret}"})
        for name, secret in secrets.items()
    }
    yield Callers(**clients)
    for client in clients.values():
        client.close()


def upload(client: httpx.Client, name: str = "train.jsonl") -> str:
    answer = client.post("/v1/files", files={"file": (name, ROW)}, data={"purpose": "fine-tune"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def create(client: httpx.Client, **params: Any) -> str:
    answer = client.post("/admin/jobs", json={"kind": "finetune", "params": params})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def files_of(client: httpx.Client) -> set[str]:
    return {each["filename"] for each in client.get("/v1/files").json()["data"]}


def jobs_of(client: httpx.Client) -> set[str]:
    return {each["id"] for each in client.get("/admin/jobs").json()["data"]}


def test_a_list_of_files_has_ones_own(callers: Callers) -> None:
    upload(callers.one, "one.jsonl")
    upload(callers.two, "two.jsonl")
    assert files_of(callers.one) == {"one.jsonl"}
    assert files_of(callers.two) == {"two.jsonl"}
    assert files_of(callers.admin) >= {"one.jsonl", "two.jsonl", "local.jsonl", "before_keys.jsonl"}


@pytest.mark.parametrize("path", ["/v1/files/{}", "/v1/files/{}/content"])
def test_anothers_file_is_not_there(callers: Callers, path: str) -> None:
    file = upload(callers.one)
    refused = error_of(callers.two.get(path.format(file)), 404)
    absent = error_of(callers.two.get(path.format("file-none")), 404)
    assert refused == absent | {"message": absent["message"].replace("file-none", file)}, "nothing reveals that it exists"
    for client in (callers.one, callers.admin):
        assert client.get(path.format(file)).status_code == 200


def test_anothers_file_is_no_cursor(callers: Callers) -> None:
    file = upload(callers.one)
    assert error_of(callers.two.get("/v1/files", params={"after": file}), 404)["code"] == "file_not_found"


def test_anothers_file_is_not_deleted(callers: Callers) -> None:
    file = upload(callers.one)
    assert error_of(callers.two.delete(f"/v1/files/{file}"), 404)["code"] == "file_not_found"
    assert callers.one.delete(f"/v1/files/{file}").json()["deleted"]
    file = upload(callers.one)
    assert callers.admin.delete(f"/v1/files/{file}").json()["deleted"]


def test_anothers_file_in_use_is_not_there_either(callers: Callers) -> None:
    file = upload(callers.one)
    job = create(callers.one, data=file)
    assert error_of(callers.two.delete(f"/v1/files/{file}"), 404)["code"] == "file_not_found"
    assert error_of(callers.one.delete(f"/v1/files/{file}"), 409)["code"] == "file_in_use"
    callers.one.post(f"/admin/jobs/{job}/cancel").raise_for_status()


def test_a_list_of_jobs_has_ones_own(callers: Callers) -> None:
    one, two = create(callers.one), create(callers.two)
    assert one in jobs_of(callers.one)
    assert two not in jobs_of(callers.one)
    assert jobs_of(callers.two) == {two}
    everything = callers.admin.get("/admin/jobs").json()["data"]
    assert {one, two} < {each["id"] for each in everything}
    assert {each["owner"] for each in everything} >= {"local"}
    assert error_of(callers.two.get("/admin/jobs", params={"after": one}), 404)["code"] == "job_not_found"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/jobs/{}"),
        ("GET", "/admin/jobs/{}/events"),
        ("GET", "/admin/jobs/{}/log"),
        ("POST", "/admin/jobs/{}/pause"),
        ("POST", "/admin/jobs/{}/resume"),
        ("POST", "/admin/jobs/{}/cancel"),
        ("DELETE", "/admin/jobs/{}"),
    ],
)
def test_anothers_job_is_not_there(callers: Callers, method: str, path: str) -> None:
    job = create(callers.one)
    refused = error_of(callers.two.request(method, path.format(job)), 404)
    absent = error_of(callers.two.request(method, path.format("job-none")), 404)
    assert refused == absent | {"message": absent["message"].replace("job-none", job)}
    assert callers.one.get(f"/admin/jobs/{job}").json()["status"] == "queued"
    assert callers.admin.request(method, path.format(job)).status_code in (200, 409)


@pytest.mark.parametrize("path", ["/admin/jobs", "/admin/job-plans"])
def test_a_job_reads_ones_own_files_only(callers: Callers, path: str) -> None:
    mine, theirs = upload(callers.two), upload(callers.one)
    for params in ({"data": theirs}, {"deep": [{"data": theirs}]}):
        error = error_of(callers.two.post(path, json={"kind": "finetune", "params": params}), 404)
        assert (error["code"], error["param"]) == ("file_not_found", "file_id")
    for client in (callers.two, callers.admin):
        assert client.post(path, json={"kind": "finetune", "params": {"data": mine}}).status_code in (200, 201)


def test_a_job_needs_ones_own_jobs_only(callers: Callers) -> None:
    theirs = create(callers.one)
    for body in ({"needs": [theirs]}, {"params": {"data": f"@{theirs}"}}):
        error = error_of(callers.two.post("/admin/jobs", json={"kind": "finetune", **body}), 404)
        assert error["code"] == "job_not_found"


def test_a_chain_is_its_makers(callers: Callers) -> None:
    steps = [
        {"name": "a", "kind": "finetune", "params": {}},
        {"name": "b", "kind": "finetune", "params": {"data": "@a"}},
    ]
    made = callers.one.post("/admin/pipelines", json={"steps": steps})
    assert made.status_code == 201, made.text
    chain = made.json()
    assert error_of(callers.two.get(f"/admin/pipelines/{chain['id']}"), 404)["code"] == "job_not_found"
    assert callers.one.get(f"/admin/pipelines/{chain['id']}").status_code == 200
    owners = {callers.admin.get(f"/admin/jobs/{job['id']}").json()["owner"] for job in chain["jobs"]}
    assert len(owners) == 1
    steps[0]["params"] = {"data": upload(callers.one)}
    assert error_of(callers.two.post("/admin/pipelines", json={"steps": steps}), 404)["code"] == "file_not_found"


@pytest.mark.parametrize("kind", ["convert", "register"])
def test_what_fetches_or_moves_aliases_is_for_admins(callers: Callers, kind: str) -> None:
    step = {"name": "a", "kind": kind, "params": {}}
    for path, body in (
        ("/admin/jobs", {"kind": kind}),
        ("/admin/job-plans", {"kind": kind}),
        ("/admin/pipelines", {"steps": [step]}),
    ):
        error = error_of(callers.one.post(path, json=body), 403)
        assert (error["code"], error["param"]) == ("insufficient_scope", "kind")
        assert callers.admin.post(path, json=body).status_code != 403


def test_fine_tuning_jobs_by_openais_client(server: LiveServer, callers: Callers, secrets: dict[str, str]) -> None:
    params = {"model": "smollm2-135m:1", "output": "ft-0123abcd", "objective": "supervised", "epochs": 1, "batch_size": 1}
    file = upload(callers.one)
    job = create(callers.one, data=file, **params).replace("job-", "ftjob-")

    def client(name: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{server.url}/v1", api_key=secrets[name], max_retries=0, timeout=60)

    with client("one") as one, client("two") as two, client("admin") as admin:
        assert [each.id for each in one.fine_tuning.jobs.list()] == [job]
        assert [each.id for each in admin.fine_tuning.jobs.list()] == [job]
        assert list(two.fine_tuning.jobs.list()) == []
        actions: list[Callable[[str], Any]] = [
            two.fine_tuning.jobs.retrieve,
            two.fine_tuning.jobs.cancel,
            two.fine_tuning.jobs.pause,
            two.fine_tuning.jobs.resume,
            two.fine_tuning.jobs.list_events,
            two.fine_tuning.jobs.checkpoints.list,
        ]
        for act in actions:
            with pytest.raises(openai.NotFoundError, match=f"no fine-tuning job '{job}' here"):
                act(job)
        with pytest.raises(openai.NotFoundError):
            two.fine_tuning.jobs.list(after=job)
        with pytest.raises(openai.BadRequestError, match=f"no file '{file}' here"):
            two.fine_tuning.jobs.create(model="smollm2-135m", training_file=file)
        assert one.fine_tuning.jobs.retrieve(job).training_file == file
        assert admin.fine_tuning.jobs.cancel(job).status == "cancelled"


@pytest.mark.parametrize("params", [{"data": "/etc/passwd"}, {"data": "rows.jsonl"}, {"teacher": "paid"}, {"folder": "/tmp/out"}])
@pytest.mark.parametrize("path", ["/admin/jobs", "/admin/job-plans"])
def test_paths_and_endpoints_are_for_admins(callers: Callers, path: str, params: dict[str, str]) -> None:
    body = {"kind": "finetune", "params": params}
    refused = error_of(callers.one.post(path, json=body), 403)
    assert (refused["code"], refused["param"]) == ("insufficient_scope", *params)
    step = {"steps": [{"name": "one", **body}]}
    assert error_of(callers.one.post("/admin/pipelines", json=step), 403)["code"] == "insufficient_scope"
    listed = callers.admin.post(path, json=body)
    assert (listed.status_code, listed.json()["error"]["code"]) == (400, "not_allowed"), "the configuration lists none of these"
