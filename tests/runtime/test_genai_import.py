"""Which ONNX folders are imported, and what is written down of who can run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from model_registry.conversion import Imported, ImportOptions
from model_registry.conversion.formats.onnx.importer import OnnxFolderImporter
from model_registry.errors import CorruptModel, UnsupportedModel
from runtime.engines.foundry.folder import write_foundry_folder
from runtime.engines.genai.library import build_genai_engine
from runtime.engines.model_folder import read_model_folder
from runtime.protocol.messages import EngineOptions, ProviderChoice
from runtime.protocol.request import TextPrompt
from tests.doubles.behaviour_plain_decoder import write_genai_decoder
from tests.doubles.engine_bench import Clock, EngineBench

pytestmark = pytest.mark.model


class RecordedProgress:
    """Remembers the stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def update(self, done: int, total: int | None) -> None:
        pass


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    folder = tmp_path / "imported"
    folder.mkdir()
    return folder


def run(source: Path, destination: Path, recorded: RecordedProgress | None = None) -> Imported:
    return OnnxFolderImporter().run(source, destination, ImportOptions(), recorded or RecordedProgress())


def change_config(folder: Path, **decoder: Any) -> None:
    config = json.loads((folder / "genai_config.json").read_text())
    config["model"]["decoder"] |= decoder
    (folder / "genai_config.json").write_text(json.dumps(config))


def change_graph(folder: Path, change: Any) -> None:
    model = onnx.load(folder / "model.onnx")
    change(model.graph)
    onnx.save(model, folder / "model.onnx")


def test_a_graph_that_can_batch_is_named_so(tmp_path: Path, imported: Path) -> None:
    recorded = RecordedProgress()
    assert run(write_genai_decoder(tmp_path / "gqa"), imported, recorded).parameters["graph"] == "gqa"
    assert recorded.stages == ["checking the model", "copying the model"]


def test_another_attention_is_imported_for_genai_and_runs(tmp_path: Path, imported: Path) -> None:
    recorded = RecordedProgress()
    result = run(write_genai_decoder(tmp_path / "plain", plain=True), imported, recorded)
    assert (result.parameters["graph"], result.parameters["wrote_genai_config"]) == ("other", False)
    assert "onnxruntime-genai will serve it" in recorded.stages[-1]
    bench = EngineBench(build_genai_engine(imported, EngineOptions(threads=1), ProviderChoice()), Clock())
    assert bench.answer(TextPrompt(text="345"), temperature=0, max_tokens=4).text == "6789"


def test_a_version_of_an_earlier_release_runs_no_library(tmp_path: Path) -> None:
    folder = write_genai_decoder(tmp_path / "plain", plain=True)
    change_config(folder, session_options={"custom_ops_library": "tokenizer.model"})
    with pytest.raises(UnsupportedModel, match="custom_ops_library"):
        build_genai_engine(folder, EngineOptions(threads=1), ProviderChoice())
    with pytest.raises(UnsupportedModel, match="custom_ops_library"):
        write_foundry_folder(read_model_folder(folder), tmp_path / "shown", context_length=8, threads=1)


def add_input(graph: onnx.GraphProto) -> None:
    graph.input.append(helper.make_tensor_value_info("past_conv.0", TensorProto.FLOAT, ["batch", 4]))


def name_paged(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":
            node.op_type = "PagedAttention"


def widen_one_layer(graph: onnx.GraphProto) -> None:
    """One KV input of other heads than the rest."""
    port = next(port for port in graph.input if port.name == "past_key_values.1.key")
    port.type.tensor_type.shape.dim[1].dim_value = 7


def store_bytes(graph: onnx.GraphProto) -> None:
    for port in graph.input:
        if port.name.startswith("past"):
            port.type.tensor_type.elem_type = TensorProto.INT8


@pytest.mark.parametrize(
    ("change", "kind"), [(add_input, "other"), (widen_one_layer, "other"), (store_bytes, "other"), (name_paged, "paged")]
)
def test_what_else_our_batching_cannot_run(tmp_path: Path, imported: Path, change: Any, kind: str) -> None:
    """State beside the KV cache, layers of different shape, a quantized cache, a paged one."""
    source = write_genai_decoder(tmp_path / "source")
    change_graph(source, change)
    assert run(source, imported).parameters["graph"] == kind


def test_the_configuration_says_how_inputs_and_outputs_are_called(tmp_path: Path, imported: Path) -> None:
    source = write_genai_decoder(tmp_path / "source")
    change_config(source, outputs={"logits": "scores"})
    with pytest.raises(UnsupportedModel, match="from input_ids to scores"):
        run(source, imported)


def test_the_provider_family_is_the_configuration_s(tmp_path: Path, imported: Path) -> None:
    source = write_genai_decoder(tmp_path / "source")
    change_config(source, session_options={"provider_options": [{"OpenVINO": {"device_type": "NPU"}}]})
    assert run(source, imported).provider_family == "openvino"


def test_more_than_one_graph_is_refused_by_name(tmp_path: Path, imported: Path) -> None:
    source = write_genai_decoder(tmp_path / "source")
    change_config(source, pipeline=[{"embeddings": {"filename": "embeddings.onnx"}}])
    with pytest.raises(UnsupportedModel, match="a pipeline of graphs"):
        run(source, imported)


# ---- graphs compiled for a device ----


def compile_for_device(folder: Path, location: str) -> None:
    def change(graph: onnx.GraphProto) -> None:
        node = helper.make_node("EPContext", [], ["compiled"], domain="com.microsoft", embed_mode=0, ep_cache_context=location)
        graph.node.append(node)

    change_graph(folder, change)


def test_the_files_of_a_compiled_graph_come_along(tmp_path: Path, imported: Path) -> None:
    source = write_genai_decoder(tmp_path / "source")
    (source / "openvino_model.xml").write_text("<net/>")
    (source / "openvino_model.bin").write_bytes(b"weights")
    (source / "unrelated.bin").write_bytes(b"no")
    compile_for_device(source, "openvino_model.xml")
    run(source, imported)
    assert {file.name for file in imported.glob("*.*")} >= {"openvino_model.xml", "openvino_model.bin", "model.onnx"}
    assert not (imported / "unrelated.bin").exists()


@pytest.mark.parametrize(
    ("location", "text"), [("context.bin", "missing"), ("../context.bin", "outside"), ("/etc/passwd", "outside")]
)
def test_a_compiled_graph_that_is_not_there_is_refused(tmp_path: Path, imported: Path, location: str, text: str) -> None:
    source = write_genai_decoder(tmp_path / "source")
    (tmp_path / "context.bin").write_bytes(b"somebody's")
    compile_for_device(source, location)
    with pytest.raises(CorruptModel, match=text):
        run(source, imported)
