"""`slmops keys` in the registry itself, and through a daemon that runs; and that nobody at the machine is locked out."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_registry.database import Database
from model_registry.keys import KeyStore
from server.cli.daemon import Daemon
from tests.doubles.daemon_process import PROGRAM, daemon_process, environment

pytestmark = pytest.mark.api

Slmops = Callable[..., Any]
PATIENCE_S = 60
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_key_is_created_listed_revoked_and_removed(slmops: Slmops, home: Path) -> None:
    assert slmops("keys", "list").out.startswith("no keys")
    made = slmops("keys", "create", "--name", "app", "--scope", "inference", "--scope", "read", "--expires", "90d")
    assert made.code == 0, made.err
    secret = made.out.strip()
    assert secret.startswith("slm_")
    with Database(home) as database:
        store = KeyStore(database)
        (key,) = store.all_keys()
    assert (key.name, key.scopes) == ("app", ("inference", "read"))
    listed = slmops("keys", "list")
    assert secret not in listed.out
    assert key.id in listed.out
    assert "inference, read" in listed.out
    assert "usable" in listed.out
    assert slmops("keys", "revoke", "app").out == f"{key.id} (app) is revoked\n"
    assert json.loads(slmops("keys", "list", "--json").out)[0]["status"] == "revoked"
    gone = slmops("keys", "rm", key.id)
    assert gone.out == f"{key.id} (app) is removed\n"
    assert "without a key" in gone.err
    assert slmops("keys", "list", "--json").out == "[]\n"


def test_the_output_holds_the_secret_alone_and_the_notes_say_what_follows(slmops: Slmops) -> None:
    first = slmops("keys", "create", "--name", "one", "--scope", "inference")
    assert len(first.out.splitlines()) == 1
    assert "from now on every request needs a key" in first.err
    assert "scope admin" in first.err
    second = slmops("keys", "create", "--name", "two", "--scope", "admin", "--json")
    assert json.loads(second.out)["secret"].startswith("slm_")
    assert "every request needs a key" not in second.err
    assert "shown only now" in second.err


def test_a_first_key_for_admins_gives_no_warning_of_a_lockout(slmops: Slmops) -> None:
    made = slmops("keys", "create", "--name", "ops", "--scope", "admin")
    assert "from now on every request needs a key" in made.err
    assert "does not have the scope admin" not in made.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("create", "--name", "a b", "--scope", "read"), 1, "letters"),
        (("create", "--name", "a"), 2, "--scope"),
        (("create", "--scope", "read"), 2, "--name"),
        (("create", "--name", "a", "--scope", "all"), 2, "'inference', 'jobs', 'read', 'admin'"),
        (("create", "--name", "a", "--scope", "read", "--expires", "soon"), 2, "90d"),
        (("revoke", "nobody"), 1, "slmops keys list"),
        (("rm", "nobody"), 1, "slmops keys list"),
    ],
)
def test_what_is_wrong_is_one_line(slmops: Slmops, arguments: tuple[str, ...], code: int, words: str) -> None:
    run = slmops("keys", *arguments)
    assert (run.code, run.err.count("\n")) == (code, 1), run.err
    assert words in run.err


def test_a_command_that_serves_itself_needs_no_key(slmops: Slmops, monkeypatch: pytest.MonkeyPatch) -> None:
    """`slmops run` without a daemon: its server is this process's own, whatever keys there are."""
    monkeypatch.setenv("SLMOPS_ENGINE", "fake")
    slmops("keys", "create", "--name", "ops", "--scope", "admin")
    run = slmops("run", "Hello")
    assert (run.code, run.out) == (0, "You said: Hello\n"), run.err


@pytest.mark.parametrize(
    ("url", "is_here"), [("http://127.0.0.1:1", True), ("http://[::1]:1", True), ("http://box.example", False)]
)
def test_which_daemon_is_on_this_machine(url: str, is_here: bool) -> None:
    with Daemon(url) as daemon:
        assert daemon.is_here is is_here


# ---- with a daemon ----


@pytest.fixture(scope="module")
def daemon_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def url(daemon_home: Path) -> Iterator[str]:
    with daemon_process(daemon_home) as url:
        yield url


@pytest.fixture
def command(daemon_home: Path, url: str) -> Command:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        env = environment(daemon_home, {"SLMOPS_PORT": url.rpartition(":")[2], **variables})
        return subprocess.run(
            [*PROGRAM, *arguments], cwd=daemon_home, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def test_a_daemon_that_runs_takes_the_first_key_at_once_and_nobody_is_locked_out(
    command: Command, url: str, daemon_home: Path
) -> None:
    assert httpx.get(f"{url}/v1/models").status_code == 200
    made = command("keys", "create", "--name", "app", "--scope", "inference")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert httpx.get(f"{url}/v1/models").status_code == 401, "the daemon itself created it, so it holds for the next request"
    assert httpx.get(f"{url}/v1/models", headers={"x-api-key": secret}).status_code == 200

    refused = command("ps")
    assert refused.returncode == 1
    assert "SLMOPS_API_KEY" in refused.stderr
    assert "Bearer" not in refused.stderr
    wrong = command("ps", SLMOPS_API_KEY="ключ")
    assert (wrong.returncode, "API key is wrong" in wrong.stderr) == (1, True), wrong.stderr
    assert command("run", "Hi", SLMOPS_API_KEY=secret).stdout == "You said: Hi\n"
    missing = command("ps", SLMOPS_API_KEY=secret)
    assert (missing.returncode, "needs the scope `read`" in missing.stderr) == (1, True)

    for variables in ({}, {"SLMOPS_API_KEY": secret}):
        listed = command("keys", "list", "--json", **variables)
        assert [each["name"] for each in json.loads(listed.stdout)] == ["app"]
        assert str(daemon_home) in listed.stderr, "it names the registry that was used instead of the daemon"
    admin = command("keys", "create", "--name", "ops", "--scope", "admin").stdout.strip()
    wait_until_known(url, admin)
    assert command("ps", SLMOPS_API_KEY=admin).returncode == 0
    through = command("keys", "list", SLMOPS_API_KEY=admin)
    assert (through.returncode, through.stderr) == (0, ""), "with an admin's key it uses the daemon"
    assert command("keys", "revoke", "app", SLMOPS_API_KEY=admin).returncode == 0
    assert httpx.get(f"{url}/v1/models", headers={"x-api-key": secret}).json()["error"]["code"] == "revoked_api_key"


def wait_until_known(url: str, secret: str) -> None:
    """The daemon looks once a second at what others changed."""
    deadline = time.monotonic() + PATIENCE_S
    while httpx.get(f"{url}/v1/models", headers={"x-api-key": secret}).status_code != 200:
        assert time.monotonic() < deadline, "the daemon does not see the new key"
