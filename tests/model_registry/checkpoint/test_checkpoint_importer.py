"""A checkpoint is imported as its GGUF twin is: the same logits, whatever the family, the weights' type, the number of files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from model_registry.conversion import choose
from model_registry.conversion.formats.checkpoint.importer import CheckpointImporter, open_checkpoint
from model_registry.conversion.formats.checkpoint.writer import WEIGHTS, write_checkpoint
from model_registry.conversion.formats.gguf.importer import GgufImporter, open_source
from model_registry.conversion.importer import Imported, ImportOptions
from model_registry.conversion.source import EMBEDDING
from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.progress import SilentProgress
from model_registry.records import Precision
from tests.doubles.tiny_gguf import GEMMA, Tiny, open_session, run_graph, write_gguf

pytestmark = pytest.mark.model

MODELS = {
    "llama": Tiny(),
    "llama tied": Tiny(tied=True),
    "llama linear": Tiny(metadata={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}),
    "qwen2": Tiny("qwen2", qkv_bias=True),
    "qwen3": Tiny("qwen3"),
    "smollm3": Tiny("smollm3", layers=5),
    "gemma3": GEMMA,
}


def import_with(importer: Any, path: Path, folder: Path, precision: Precision = Precision.FP32) -> Imported:
    folder.mkdir()
    imported: Imported = importer.run(path, folder, ImportOptions(precision, measure=False), SilentProgress())
    return imported


def checkpoint_of(tmp_path: Path, tiny: Tiny) -> tuple[Path, Path]:
    """(the checkpoint, its GGUF twin imported)."""
    gguf = write_gguf(tmp_path / "tiny.gguf", tiny)
    import_with(GgufImporter(), gguf, tmp_path / "twin")
    (folder := tmp_path / "checkpoint").mkdir()
    write_checkpoint(open_source(gguf), folder, bos_id=0, eos_ids=[2])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tmp_path / "twin" / name, folder / name)
    return folder, tmp_path / "twin"


def logits_of(folder: Path) -> NDArray[np.float32]:
    return run_graph(open_session(folder), list(range(3, 30)))[0]


@pytest.mark.parametrize("tiny", MODELS.values(), ids=MODELS.keys())
def test_the_same_logits(tmp_path: Path, tiny: Tiny) -> None:
    checkpoint, twin = checkpoint_of(tmp_path, tiny)
    assert choose(checkpoint).name == "checkpoint"
    imported = import_with(CheckpointImporter(), checkpoint, tmp_path / "imported")
    assert (imported.architecture, imported.precision) == (tiny.architecture, Precision.FP32)
    np.testing.assert_allclose(logits_of(tmp_path / "imported"), logits_of(twin), atol=1e-4)
    config = json.loads((tmp_path / "imported" / "genai_config.json").read_text())
    twins = json.loads((twin / "genai_config.json").read_text())
    assert config["model"]["eos_token_id"] == 2
    assert config["model"]["vocab_size"] == twins["model"]["vocab_size"]
    assert config["model"]["type"] == twins["model"]["type"]


def test_int8_is_smoothed_as_a_gguf_file_is(tmp_path: Path) -> None:
    checkpoint, _ = checkpoint_of(tmp_path, Tiny())
    imported = import_with(CheckpointImporter(), checkpoint, tmp_path / "imported", Precision.AUTO)
    assert imported.precision is Precision.INT8
    assert imported.parameters["smoothed"] is True


def test_weights_in_several_files_and_in_half_precision(tmp_path: Path) -> None:
    checkpoint, twin = checkpoint_of(tmp_path, Tiny())
    tensors = {name: value.astype(np.float16) for name, value in load_file(checkpoint / WEIGHTS).items()}
    (checkpoint / WEIGHTS).unlink()
    names = sorted(tensors)
    for index, half in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in half}, checkpoint / f"model-{index}.safetensors")
    import_with(CheckpointImporter(), checkpoint, tmp_path / "imported")
    np.testing.assert_allclose(logits_of(tmp_path / "imported"), logits_of(twin), atol=0.05)


@pytest.mark.parametrize("tiny", [MODELS["qwen2"], MODELS["gemma3"]], ids=["qwen2", "gemma3"])
def test_a_checkpoint_has_the_tensors_of_its_twin(tmp_path: Path, tiny: Tiny) -> None:
    checkpoint, _ = checkpoint_of(tmp_path, tiny)
    ours, twin = open_checkpoint(checkpoint), open_source(tmp_path / "tiny.gguf")
    assert ours.architecture == twin.architecture
    assert {name: info.shape for name, info in ours.tensors.items()} == {name: info.shape for name, info in twin.tensors.items()}
    for name in ours.tensors:
        np.testing.assert_allclose(ours.read(name), twin.read(name), atol=1e-6)


def test_bfloat16_is_widened_whole_and_by_rows(tmp_path: Path) -> None:
    checkpoint, _ = checkpoint_of(tmp_path, Tiny())
    whole = load_file(checkpoint / WEIGHTS)
    save_file({name: value.astype(ml_dtypes.bfloat16) for name, value in whole.items()}, checkpoint / WEIGHTS)
    source = open_checkpoint(checkpoint)
    assert {info.dtype for info in source.tensors.values()} == {"BF16"}
    expected = whole["model.embed_tokens.weight"].astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(source.read(EMBEDDING), expected)
    np.testing.assert_array_equal(source.read_rows(EMBEDDING, slice(250, 10_000)), expected[250:])
    np.testing.assert_array_equal(source.read_rows(EMBEDDING, np.array([7, 3, 7])), expected[[7, 3, 7]])
    imported = import_with(CheckpointImporter(), checkpoint, tmp_path / "imported", Precision.AUTO)
    assert imported.parameters["source_types"] == {"BF16": 16}


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    checkpoint, _ = checkpoint_of(tmp_path, Tiny())
    (checkpoint / WEIGHTS).rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match="pickles, which can run code"):
        import_with(CheckpointImporter(), checkpoint, tmp_path / "imported")


@pytest.mark.parametrize(
    ("change", "error", "expected_text"),
    [
        ({"model_type": "mamba"}, UnsupportedModel, "'mamba' are not imported"),
        ({"hidden_size": 0}, CorruptModel, "hidden_size"),
        ({"num_hidden_layers": 3}, CorruptModel, "no tensor"),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, UnsupportedModel, "longrope"),
    ],
)
def test_configurations_of_no_model_here(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], expected_text: str
) -> None:
    checkpoint, _ = checkpoint_of(tmp_path, Tiny())
    config = json.loads((checkpoint / "config.json").read_text()) | change
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=expected_text):
        import_with(CheckpointImporter(), checkpoint, tmp_path / "imported")


@pytest.mark.parametrize("size", [0, 4, 100, 5000])
def test_a_cut_file_is_reported(tmp_path: Path, size: int) -> None:
    checkpoint, _ = checkpoint_of(tmp_path, Tiny())
    whole = (checkpoint / WEIGHTS).read_bytes()
    (checkpoint / WEIGHTS).write_bytes(whole[:size])
    with pytest.raises(CorruptModel):
        import_with(CheckpointImporter(), checkpoint, tmp_path / "imported")


def test_without_a_tokenizer(tmp_path: Path) -> None:
    checkpoint, _ = checkpoint_of(tmp_path, Tiny())
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(UnsupportedModel, match=r"no tokenizer\.json"):
        import_with(CheckpointImporter(), checkpoint, tmp_path / "imported")
