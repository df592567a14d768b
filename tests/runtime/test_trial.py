"""A folder is loaded once by a real worker: a sound one answers, a broken one raises with the reason, and one that cannot be tried
returns why.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from model_registry.conversion.formats.gguf.importer import GgufImporter
from model_registry.conversion.importer import Imported, ImportOptions
from model_registry.errors import UnloadableModel
from model_registry.progress import SilentProgress
from model_registry.records import Precision
from runtime import trial
from runtime.machine.execution_provider import ExecutionProvider
from runtime.trial import try_folder
from tests.doubles.tiny_gguf import Tiny, write_gguf

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Imported]:
    folder = tmp_path_factory.mktemp("sound")
    source = write_gguf(folder / "tiny.gguf", Tiny())
    (folder / "imported").mkdir()
    options = ImportOptions(Precision.FP32, measure=False)
    return folder / "imported", GgufImporter().run(source, folder / "imported", options, SilentProgress())


@pytest.fixture
def copy(sound: tuple[Path, Imported], tmp_path: Path) -> tuple[Path, Imported]:
    shutil.copytree(sound[0], tmp_path / "copy")
    return tmp_path / "copy", sound[1]


def test_a_sound_folder_answers(sound: tuple[Path, Imported]) -> None:
    assert try_folder(*sound) is None


def test_a_graph_that_does_not_load(copy: tuple[Path, Imported]) -> None:
    weights = next(path for path in copy[0].iterdir() if path.suffix == ".onnx")
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(UnloadableModel, match="cannot be loaded, so nothing was published: the model could not be loaded"):
        try_folder(*copy)


def test_a_configuration_that_cannot_be_served(copy: tuple[Path, Imported]) -> None:
    path = copy[0] / "genai_config.json"
    config = json.loads(path.read_text())
    config["model"]["eos_token_id"] = "</s>"
    path.write_text(json.dumps(config))
    with pytest.raises(UnloadableModel, match=r"genai_config\.json"):
        try_folder(*copy)


def test_another_device_s_build_is_not_tried(sound: tuple[Path, Imported], monkeypatch: pytest.MonkeyPatch) -> None:
    async def only_this_cpu(self: object) -> tuple[ExecutionProvider, ...]:
        return (trial.this_cpu(),)

    monkeypatch.setattr(trial.ProviderDirectory, "providers", only_this_cpu)
    why = try_folder(sound[0], Imported("llama", 64, Precision.FP16, "cuda"))
    assert why is not None
    assert why.startswith("It was not loaded once before it was published, since it is built for cuda.")


def test_without_memory_it_is_not_tried(sound: tuple[Path, Imported], monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available = 1 << 20

    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory)
    why = try_folder(*sound)
    assert why is not None
    assert "are free" in why
