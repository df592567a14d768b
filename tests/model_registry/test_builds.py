"""Several builds of one model in one version: how they are made, what the manifest keeps of them, what cannot be published."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from model_registry.artifacts import StagedVariant
from model_registry.conversion import Imported, ImportOptions
from model_registry.errors import UnloadableModel, UnsupportedModel
from model_registry.progress import Progress, SilentProgress
from model_registry.pull import PullOptions, pull
from model_registry.pull.builds import Build, BuildRequest, Builds, make_builds
from model_registry.records import DECODER, Capability, GraphKind, Manifest, Precision, VariantRole
from model_registry.registry import Registry, open_registry


@dataclass(frozen=True)
class Writer:
    """An importer that writes what it was requested to build."""

    family: str
    graph: GraphKind = GraphKind.GQA
    name: str = "writer"

    def can_import(self, path: Path) -> bool:
        return True

    def run(self, path: Path, destination: Path, options: ImportOptions, progress: Progress) -> Imported:
        (destination / "model.onnx").write_text(f"{path.read_text()} for {self.family} as {options.precision}")
        return Imported(
            architecture="llama",
            context_length=64 if self.family == "cpu" else 32,
            precision=options.precision,
            provider_family=self.family,
            parameters={"block_size": 32},
            metrics={"perplexity": 9.0 if self.family == "cpu" else 8.0},
            graph=self.graph,
            warnings=("It is small.",),
        )


CPU = BuildRequest(Precision.INT8, (Writer("cpu"),))
CUDA = BuildRequest(Precision.FP16, (Writer("cuda", GraphKind.OTHER, "other-writer"),))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_text("weights")
    return path


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    path = tmp_path / "staging"
    path.mkdir()
    return path


def test_a_version_has_its_builds_in_the_order_in_which_they_were_requested(registry: Registry, source: Path) -> None:
    version = pull(registry, str(source), name="tiny", options=PullOptions(builds=(CUDA, CPU)))
    assert [(each.name, each.graph, each.role) for each in version.builds] == [
        ("cuda-fp16", GraphKind.OTHER, VariantRole.SERVE),
        ("cpu-int8", GraphKind.GQA, VariantRole.SERVE),
    ]
    assert (version.builds[1].folder / "model.onnx").read_text() == "weights for cpu as int8"
    manifest = version.manifest
    assert (manifest.importer, manifest.context_length, manifest.warnings) == ("other-writer", 32, ("It is small.",))
    assert manifest.parameters["builds"] == {
        "cuda-fp16": {"importer": "other-writer", "block_size": 32},
        "cpu-int8": {"importer": "writer", "block_size": 32},
    }
    assert dict(manifest.metrics) == {"perplexity": 8.0, "perplexity.cpu-int8": 9.0}


def test_one_build_is_recorded_plainly(registry: Registry, source: Path) -> None:
    version = pull(registry, str(source), name="tiny", options=PullOptions(builds=(CPU,)))
    assert (version.manifest.parameters["block_size"], dict(version.manifest.metrics)) == (32, {"perplexity": 9.0})
    assert "builds" not in version.manifest.parameters


def test_a_build_that_is_added_makes_another_version(registry: Registry, source: Path) -> None:
    one = pull(registry, str(source), name="tiny", options=PullOptions(builds=(CPU,)))
    options = PullOptions(builds=(CPU, CUDA), requested={"builds": ["cpu-int8", "cuda-fp16"]})
    both = pull(registry, str(source), name="tiny", options=options)
    assert (one.number, both.number) == (1, 2)
    assert one.builds[0].artifacts == both.builds[0].artifacts, "files that both have are kept once"
    assert len(registry.resolve("tiny:1").builds) == 1


def test_the_same_build_twice_is_refused(staging: Path, source: Path) -> None:
    with pytest.raises(UnsupportedModel, match="cpu-int8 is there twice"):
        make_builds((CPU, CPU), source, staging, SilentProgress())


def test_variants_of_one_name_are_not_published(registry: Registry, staging: Path) -> None:
    (staging / "weights").write_text("x")
    variants = [StagedVariant(Precision.INT8, "cpu", staging)] * 2
    with pytest.raises(UnsupportedModel, match="twice"):
        registry.publish("tiny", Manifest("test", "test", "llama", 16), variants)
    assert registry.models() == ()


@pytest.mark.parametrize(
    ("untried", "alias"), [({"cuda"}, "live"), ({"cpu", "cuda"}, "candidate")], ids=["one was loaded", "none was loaded"]
)
def test_a_version_becomes_live_when_one_build_was_loaded_once(
    registry: Registry, source: Path, untried: set[str], alias: str
) -> None:
    pull(registry, str(source), name="tiny", options=PullOptions(builds=(CPU,)))

    def trial(folder: Path, imported: Imported) -> str | None:
        return f"no {imported.provider_family} here" if imported.provider_family in untried else None

    options = PullOptions(builds=(CPU, CUDA), trial=trial, requested={"builds": 2})
    version = pull(registry, str(source), name="tiny", options=options)
    assert {f"no {family} here" for family in untried} <= set(version.manifest.warnings)
    assert registry.resolve(f"tiny:{alias}").number == version.number


def test_a_build_that_cannot_be_loaded_keeps_all_from_being_published(registry: Registry, source: Path) -> None:
    def trial(folder: Path, imported: Imported) -> str | None:
        if imported.provider_family == "cuda":
            raise UnloadableModel("it does not load")
        return None

    with pytest.raises(UnloadableModel):
        pull(registry, str(source), name="tiny", options=PullOptions(builds=(CPU, CUDA), trial=trial))
    assert registry.models() == ()


def test_capabilities_are_kept_and_those_of_a_later_release_left_out(home: Path, publish: Callable[..., object]) -> None:
    publish(capabilities=frozenset({Capability.EMBEDDING}))
    publish("other")
    with closing(sqlite3.connect(home / "registry.db")) as connection:
        connection.execute("UPDATE versions SET manifest = replace(manifest, 'embedding\"', 'embedding\", \"telepathy\"')")
        connection.commit()
    with open_registry(home) as registry:
        assert registry.resolve("tiny").manifest.capabilities == {Capability.EMBEDDING}
        assert registry.resolve("other").manifest.capabilities == DECODER


def test_without_a_chat_template_an_import_does_not_promise_chat(staging: Path, source: Path) -> None:
    (made,) = make_builds((CPU,), source, staging, SilentProgress()).each
    assert made.imported.capabilities == DECODER - {Capability.CHAT}


def test_what_was_not_tried_is_one_warning() -> None:
    made = Writer("cpu")
    build = Build(Path(), made.name, Imported("llama", 8, Precision.INT8, warnings=("It is small.",)), "It was not loaded once.")
    assert Builds((build,)).joined().warnings == ("It is small.", "It was not loaded once.")
