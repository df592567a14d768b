"""Registry commands through a daemon and on a home directly: the same answers, and never another home by accident."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from model_registry.records import ModelVersion
from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer
from tests.doubles.registry_http import local_server
from tests.doubles.tiny_gguf import Tiny, write_gguf

if TYPE_CHECKING:
    from tests.cli.conftest import Run, Slmops

pytestmark = pytest.mark.api
Publish = Callable[..., ModelVersion]


@pytest.fixture(params=["direct", "daemon"])
def way(request: pytest.FixtureRequest, home: Path) -> Iterator[tuple[str, ...]]:
    """The options that lead there. `home` holds the same models either way."""
    if request.param == "direct":
        yield ()
        return
    with LiveServer(Settings(home=home, engine="fake")) as server:
        yield ("--url", server.url)


def ok(run: Run) -> Any:
    assert run.code == 0, run.err
    return json.loads(run.out)


def test_models_are_shown_moved_verified_and_removed(slmops: Slmops, publish: Publish, way: tuple[str, ...], home: Path) -> None:
    publish("tiny", "one")
    publish("tiny", "two")
    (model,) = ok(slmops("list", "--json", *way))
    assert (model["name"], model["aliases"]) == ("tiny", {"live": 2, "previous": 1})
    assert ok(slmops("show", "Tiny", "--json", *way)) == model
    assert ok(slmops("show", "TINY:previous", "--json", *way)) == model["versions"][0]

    moved = ok(slmops("alias", "tiny:1", "candidate", "--json", *way))
    assert moved == {"model": "tiny", "alias": "candidate", "version": 1, "weight": 1.0}
    assert ok(slmops("alias", "--remove", "tiny:candidate", "--json", *way)) == {"id": "tiny:candidate", "deleted": True}
    assert slmops("alias", "--remove", "tiny:live", *way).code == 1
    assert slmops("alias", "tiny:previous", *way).out == "tiny:live is now tiny:1\n"

    assert ok(slmops("verify", "--json", *way)) == {"tiny:1": [], "tiny:2": []}
    assert ok(slmops("lineage", "tiny", "--json", *way))["label"] == "tiny:1"
    assert ok(slmops("gc", "--json", *way))["freed_bytes"] >= 0
    assert {entry["name"]: entry["installed"] for entry in ok(slmops("catalog", "--json", *way))}["smollm2-135m"] is False

    refused = slmops("rm", "tiny:1", *way)
    assert (refused.code, "live" in refused.err) == (1, True)
    assert ok(slmops("rm", "tiny", "--json", *way))["removed"] == ["tiny:1", "tiny:2"]
    assert ok(slmops("list", "--json", *way)) == []


def test_an_unknown_model_names_what_is_installed(slmops: Slmops, publish: Publish, way: tuple[str, ...]) -> None:
    publish("tiny")
    for command in ("show", "rm", "lineage", "verify"):
        run = slmops(command, "tinny", *way)
        assert (run.code, run.err.count("\n"), "Did you mean tiny?" in run.err) == (1, 1, True), run.err


def test_another_home_than_the_daemons_is_said(
    slmops: Slmops, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("tiny")
    with LiveServer(Settings(home=tmp_path / "other", engine="fake")) as server:
        monkeypatch.setenv("SLMOPS_PORT", server.url.rpartition(":")[2])
        run = slmops("list", "--json")
        assert ok(run) == []
        assert (run.err.count(str(tmp_path / "other")), run.err.count("SLMOPS_HOME")) == (1, 1)
        assert slmops("list", "--json", "--url", server.url).err == "", "this daemon was chosen"
        assert slmops("keys", "list").err.count(str(tmp_path / "other")) == 1
        removal = slmops("keys", "rm", "any")
        assert (removal.code, str(tmp_path / "other") in removal.err) == (1, True), "it works on the home alone"
        monkeypatch.setenv("SLMOPS_HOME", str(tmp_path / "other"))
        assert slmops("list").err == ""


def test_a_daemon_that_wants_a_key_is_passed_by_only_where_its_home_is_ours(
    slmops: Slmops, publish: Publish, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("tiny")
    with LiveServer(Settings(home=home, engine="fake", api_key=SecretStr("secret"))) as server:
        monkeypatch.setenv("SLMOPS_PORT", server.url.rpartition(":")[2])
        run = slmops("list", "--json")
        assert [model["name"] for model in ok(run)] == ["tiny"]
        assert str(home) in run.err
        named = slmops("list", "--url", server.url)
        assert (named.code, "SLMOPS_API_KEY" in named.err) == (1, True)
        monkeypatch.setenv("SLMOPS_HOME", str(tmp_path / "other"))
        for command in (("list",), ("gc",), ("keys", "list")):
            refused = slmops(*command)
            assert (refused.code, "SLMOPS_API_KEY" in refused.err) == (1, True), command
        assert not (tmp_path / "other").exists()
        monkeypatch.setenv("SLMOPS_API_KEY", "secret")
        assert [model["name"] for model in ok(slmops("list", "--json"))] == ["tiny"]


def test_a_server_without_a_registry_is_never_replaced_by_the_home(
    slmops: Slmops, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("tiny")
    with local_server() as server:
        server.add("/prefix/health", b"ok")
        server.add("/health", b"ok")
        monkeypatch.setenv("SLMOPS_URL", f"{server.url}/prefix/v1/")
        named = slmops("gc")
        assert (named.code, "upgrade" in named.err) == (1, True)
        assert server.count("/prefix/admin/registry") == 1, "the path before /v1 is kept"
        monkeypatch.delenv("SLMOPS_URL")
        monkeypatch.setenv("SLMOPS_PORT", server.url.rpartition(":")[2])
        assert slmops("gc").code == 1


@pytest.mark.parametrize("command", [("list",), ("ps",), ("pull", "smollm2-135m"), ("keys", "list"), ("jobs", "list")])
def test_a_chosen_daemon_that_does_not_answer_is_an_error(slmops: Slmops, command: tuple[str, ...], home: Path) -> None:
    for run in (slmops(*command, "--url", "http://127.0.0.1:1"), slmops("--url", "http://127.0.0.1:1", *command)):
        assert (run.code, "--url" in run.err) == (1, True), run.err
    assert not home.exists()
    assert slmops(*command, "--url", "ftp://x").code == 2


def test_evaluations_of_a_chosen_daemon(slmops: Slmops, publish: Publish, way: tuple[str, ...]) -> None:
    publish("tiny")
    assert ok(slmops("eval", "show", "tiny", "--json", *way)) == []


def test_a_model_of_this_machine_is_sent_to_a_daemon_with_another_home(slmops: Slmops, tmp_path: Path) -> None:
    write_gguf(tmp_path / "Sent.gguf", Tiny())
    with LiveServer(Settings(home=tmp_path / "other", engine="fake")) as server:
        run = slmops("pull", str(tmp_path / "Sent.gguf"), "--no-trial", "--json", "--url", server.url)
        assert ok(run)["label"] == "sent:1"
        again = slmops("pull", str(tmp_path / "Sent.gguf"), "--no-trial", "--json", "--url", server.url)
        assert ok(again)["label"] == "sent:1"
        missing = slmops("pull", str(tmp_path / "absent.gguf"), "--url", server.url)
        assert (missing.code, "does not exist" in missing.err) == (1, True)


def test_a_folder_with_one_slash_is_no_repository_of_the_hub(slmops: Slmops) -> None:
    Path("models").mkdir()
    write_gguf(Path("models/tiny"), Tiny())
    assert ok(slmops("pull", "models/tiny", "--no-trial", "--json"))["model"] == "tiny"
