"""The importer as `pull` sees it: what it accepts, what it writes beside the graph, and the manifest's parameters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_registry.conversion.formats.gguf.importer import GgufImporter
from model_registry.conversion.importer import Importer, ImportOptions
from model_registry.errors import OutOfDisk, UnsupportedModel
from model_registry.progress import SilentProgress
from model_registry.records import Precision
from tests.doubles.tiny_gguf import GEMMA, ImportTiny, Tiny, write_gguf

pytestmark = pytest.mark.model

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_it_is_an_importer() -> None:
    assert isinstance(GgufImporter(), Importer)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [("a.gguf", b"", True), ("a.GGUF", b"x", True), ("blob", b"GGUF\x03", True), ("a.onnx", b"\x08", False)],
)
def test_it_takes_gguf_files(name: str, content: bytes, expected: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert GgufImporter().can_import(path) is expected


def test_it_takes_no_folder_and_nothing_absent(tmp_path: Path) -> None:
    assert not GgufImporter().can_import(tmp_path)
    assert not GgufImporter().can_import(tmp_path / "absent.gguf")


def test_the_folder_is_complete(import_tiny: ImportTiny) -> None:
    metadata = {"tokenizer.chat_template": TEMPLATE, "general.license": "apache-2.0"}
    model = import_tiny(Tiny(metadata=metadata), Precision.AUTO)
    assert sorted(path.name for path in model.folder.iterdir()) == [
        "genai_config.json",
        "model.onnx",
        "model.onnx.data",
        "smoothing.npz",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert read(model.folder, "tokenizer_config.json")["chat_template"] == TEMPLATE
    config = read(model.folder, "genai_config.json")["model"]
    assert (config["type"], config["context_length"], config["vocab_size"]) == ("llama", 64, 272)
    decoder = config["decoder"]
    assert (decoder["head_size"], decoder["num_key_value_heads"], decoder["num_hidden_layers"]) == (16, 2, 2)
    imported = model.imported
    assert (imported.architecture, imported.context_length) == ("llama", 64)
    assert (imported.precision, imported.licence, imported.metrics) == (Precision.INT8, "Apache-2.0", {})
    assert (imported.parameters["block_size"], imported.parameters["smoothed"]) == (64, True)
    assert imported.parameters["source_types"] == {"F32": 16}


def test_gemma_goes_by_its_names(import_tiny: ImportTiny) -> None:
    """onnxruntime-genai calls the text model otherwise, and the licence is no SPDX one."""
    metadata = {**GEMMA.metadata, "general.license": "gemma", "tokenizer.chat_template": TEMPLATE}
    model = import_tiny(replace(GEMMA, tokenizer="llama", metadata=metadata), Precision.AUTO)
    assert (model.imported.architecture, model.imported.licence) == ("gemma3", "Gemma")
    assert read(model.folder, "genai_config.json")["model"]["type"] == "gemma3_text"
    assert read(model.folder, "tokenizer_config.json")["chat_template"] == TEMPLATE


@pytest.mark.parametrize(
    ("precision", "head_bits"),
    [(Precision.INT8, 8), (Precision.INT4, 8), (Precision.FP16, 16), (Precision.FP32, 32)],
)
def test_the_requested_precision_is_given(precision: Precision, head_bits: int, import_tiny: ImportTiny) -> None:
    imported = import_tiny(Tiny(weight_type="Q4_0"), precision).imported
    assert imported.precision is precision
    assert imported.parameters["head_bits"] == head_bits
    json.dumps(dict(imported.parameters))


def test_what_is_no_precision_of_one_build_is_refused(import_tiny: ImportTiny) -> None:
    with pytest.raises(UnsupportedModel, match="auto, int8, int4, fp16, fp32"):
        import_tiny(Tiny(), Precision.MIXED)


def test_what_float16_cannot_hold_is_refused(import_tiny: ImportTiny) -> None:
    tiny = Tiny(tensors={"blk.1.ffn_up.weight": np.full((96, 64), 70000, np.float32)})
    with pytest.raises(UnsupportedModel, match=r"blk\.1\.ffn_up\.weight has values beyond float16"):
        import_tiny(tiny, Precision.FP16)


def test_rows_that_do_not_fill_blocks_need_fp32(import_tiny: ImportTiny) -> None:
    tiny = Tiny(ffn=80)
    with pytest.raises(UnsupportedModel, match="--precision fp32"):
        import_tiny(tiny, Precision.INT8)


def test_every_end_of_turn_is_listed(import_tiny: ImportTiny) -> None:
    model = import_tiny(Tiny())
    config = read(model.folder, "genai_config.json")["model"]
    assert config["eos_token_id"] == [2, 0]  # the file's eos first, then <|endoftext|>
    assert config["bos_token_id"] == 0


def test_named_end_of_message_tokens_are_listed(import_tiny: ImportTiny) -> None:
    metadata = {"tokenizer.ggml.eot_token_id": 1, "tokenizer.ggml.eom_token_id": 5}
    model = import_tiny(Tiny(metadata=metadata))
    assert read(model.folder, "genai_config.json")["model"]["eos_token_id"] == [2, 1, 5, 0]


def test_sampling_defaults_are_reported_only_when_the_file_names_them(import_tiny: ImportTiny, tmp_path: Path) -> None:
    silent = read(import_tiny(Tiny()).folder, "genai_config.json")["search"]
    assert not {"temperature", "top_k", "top_p"} & silent.keys()
    assert silent["do_sample"] is False
    named = {"general.sampling.temp": 0.5, "general.sampling.top_k": 40, "general.sampling.top_p": 0.75}
    source = write_gguf(tmp_path / "named.gguf", Tiny(metadata=named))
    folder = tmp_path / "named"
    folder.mkdir()
    GgufImporter().run(source, folder, ImportOptions(Precision.INT8, measure=False), SilentProgress())
    search = read(folder, "genai_config.json")["search"]
    assert (search["do_sample"], search["temperature"], search["top_k"], search["top_p"]) == (True, 0.5, 40, 0.75)


@pytest.mark.parametrize("tokenizer", ["gpt2", "llama"])
def test_source_and_import_are_measured(tokenizer: str, import_tiny: ImportTiny) -> None:
    metrics = import_tiny(Tiny(tokenizer=tokenizer), Precision.FP32, measure=True).imported.metrics
    assert metrics["perplexity"] == pytest.approx(metrics["perplexity_source"], rel=1e-3)
    assert metrics["perplexity_source"] > 100  # random weights know nothing of English
    assert 1500 < metrics["perplexity_tokens"] <= 2048


def test_quantization_shows_in_the_measure(import_tiny: ImportTiny) -> None:
    metrics = import_tiny(Tiny(), Precision.INT4, measure=True).imported.metrics
    assert metrics["perplexity"] != pytest.approx(metrics["perplexity_source"], rel=1e-4)


@pytest.mark.parametrize("file", ["model.onnx.data", "tokenizer.json", "smoothing.npz"])
def test_a_full_disk_is_reported(tmp_path: Path, file: str) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", Tiny())
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / file).symlink_to("/dev/full")
    with pytest.raises(OutOfDisk, match="The disk is full") as raised:
        GgufImporter().run(source, folder, ImportOptions(Precision.INT8, measure=False), SilentProgress())
    assert raised.value.needed_bytes > 0


def test_the_source_is_not_touched(import_tiny: ImportTiny, tmp_path: Path) -> None:
    before = write_gguf(tmp_path / "other.gguf", Tiny()).read_bytes()
    assert import_tiny(Tiny()).source.read_bytes() == before


def test_progress_counts_every_layer(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []

    class Recorder:
        def __init__(self) -> None:
            self.text = ""

        def stage(self, text: str) -> None:
            self.text = text

        def update(self, done: int, total: int | None) -> None:
            seen.append((self.text, done, total))

    source = write_gguf(tmp_path / "tiny.gguf", replace(Tiny(), layers=3))
    folder = tmp_path / "out"
    folder.mkdir()
    GgufImporter().run(source, folder, ImportOptions(Precision.INT8, measure=False), Recorder())
    calibrated = [("calibrating", done, 3) for done in (1, 2, 3)]
    assert seen == calibrated + [("writing weights", done, 4) for done in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("weight_type", "precision", "block", "smoothed"),
    [
        ("Q4_1", Precision.AUTO, 64, True),
        ("Q8_0", Precision.AUTO, 32, False),
        ("Q4_0", Precision.AUTO, 32, False),
        ("Q4_0", Precision.INT8, 32, False),
        ("Q4_1", Precision.INT4, 32, False),
    ],
)
def test_only_what_is_rounded_to_8_bits_is_smoothed(
    weight_type: str, precision: Precision, block: int, smoothed: bool, import_tiny: ImportTiny
) -> None:
    parameters = import_tiny(Tiny(weight_type=weight_type), precision).imported.parameters
    assert (parameters["block_size"], parameters["smoothed"]) == (block, smoothed)


def test_an_import_is_reproducible(import_tiny: ImportTiny, tmp_path: Path) -> None:
    model = import_tiny(Tiny(), Precision.INT8)
    again = tmp_path / "again"
    again.mkdir()
    GgufImporter().run(model.source, again, ImportOptions(Precision.INT8, measure=False), SilentProgress())
    assert (again / "model.onnx.data").read_bytes() == (model.folder / "model.onnx.data").read_bytes()
