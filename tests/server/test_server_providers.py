"""GET /admin/providers: the report as it is, on request afresh, and what a failed discovery shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.machine.provider_directory import ProviderDirectory
from server.admin.providers import providers_router
from server.http.request_record import RequestRecord

pytestmark = pytest.mark.api

RECORDED = Path(__file__).parents[1] / "runtime/discoveries"


class LocalCaller:
    """In place of the layers that find out who calls: a local program does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        RequestRecord("test").attach(scope)
        await self._app(scope, receive, send)


def client(program: str) -> TestClient:
    app = FastAPI()
    app.add_middleware(LocalCaller)
    app.include_router(providers_router(ProviderDirectory((sys.executable, "-c", program))))
    return TestClient(app)


def printing(path: Path) -> str:
    return f"import pathlib; print(pathlib.Path({str(path)!r}).read_text())"


def test_every_provider_is_shown_with_why_not_and_what_to_do() -> None:
    with client(printing(RECORDED / "nvidia_desktop.json")) as http:
        answer = http.get("/admin/providers").json()
    assert (answer["object"], answer["problem"]) == ("list", None)
    cuda = next(each for each in answer["data"] if each["short"] == "cuda")
    assert (cuda["usable"], cuda["device"], cuda["memory_bytes"]) == (True, "NVIDIA GeForce RTX 4090", 24564 << 20)
    assert cuda["engines"] == ["genai"]
    webgpu = next(each for each in answer["data"] if each["short"] == "webgpu")
    assert (webgpu["usable"], webgpu["remedy"]) == (False, "pip install 'slmops[webgpu]'")


def test_the_machine_is_queried_again_only_on_request(tmp_path: Path) -> None:
    machine = tmp_path / "machine.json"
    machine.write_bytes((RECORDED / "server.json").read_bytes())
    with client(printing(machine)) as http:

        def shorts(path: str) -> list[str]:
            return [each["short"] for each in http.get(path).json()["data"]]

        assert shorts("/admin/providers") == ["cpu"]
        machine.write_bytes((RECORDED / "qualcomm_laptop.json").read_bytes())
        assert shorts("/admin/providers") == ["cpu"]
        assert shorts("/admin/providers?refresh=true") == ["cpu", "qnn", "directml", "webgpu"]
        assert shorts("/admin/providers") == ["cpu", "qnn", "directml", "webgpu"]


@pytest.mark.parametrize("path", ["/admin/providers", "/admin/providers?refresh=true"])
def test_a_discovery_that_crashes_shows_the_cpu_and_the_problem(path: str) -> None:
    with client("import os; os.abort()") as http:
        answer = http.get(path)
    assert answer.status_code == 200
    assert [each["short"] for each in answer.json()["data"]] == ["cpu"]
    assert "ended with code" in answer.json()["problem"]
