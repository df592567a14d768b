"""What the shell completes, from a home and without a daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import typer

from model_registry.records import ModelVersion
from server.cli.completion import COMPLETERS

Publish = Callable[..., ModelVersion]


def complete(what: str, incomplete: str, command: str = "show", **params: Any) -> list[str]:
    context = SimpleNamespace(info_name=command, params=params, args=[])
    return COMPLETERS[what](cast("typer.Context", context), [], incomplete)


def test_models_and_versions_of_the_home(home: Path, publish: Publish) -> None:
    publish("tiny", "one")
    publish("tiny", "two")
    publish("other")
    assert complete("MODEL", "ti") == ["tiny", "tiny:1", "tiny:2", "tiny:live", "tiny:previous"]
    assert complete("MODEL:VERSION", "o") == ["other:1", "other:live"]


def test_without_a_home_nothing_is_completed_and_none_is_made(home: Path) -> None:
    assert complete("MODEL", "") == []
    assert not home.exists()


def test_the_catalog_and_its_builds() -> None:
    assert "smollm2-135m" in complete("REF", "smol")
    assert complete("REF", "qwen2.5-0.5b:") == ["qwen2.5-0.5b:int4", "qwen2.5-0.5b:q8_0"]


def test_kinds_and_their_params() -> None:
    assert "finetune" in complete("KIND", "f")
    assert "epochs=" in complete("NAME=VALUE", "ep", kind="finetune")
    assert complete("NAME=VALUE", "", kind="nonsense") == []


@pytest.mark.api
@pytest.mark.parametrize(("what", "command"), [("JOB", "show"), ("KEY", "revoke"), ("MODEL", "stop")])
def test_what_only_a_daemon_knows_is_empty_without_one(
    home: Path, what: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete(what, "", command) == []
    assert capsys.readouterr() == ("", "")


def test_unusable_settings_complete_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMOPS_PORT", "many")
    assert complete("MODEL", "") == []
