"""The ONNX folder importer: sound folders arrive whole, browser exports get their configuration, the rest is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_registry.conversion import Imported, Importer, ImportOptions, all_importers, choose, run_first
from model_registry.conversion.formats.onnx.importer import OnnxFolderImporter
from model_registry.errors import CorruptModel, RegistryError, UnsupportedModel
from model_registry.progress import SilentProgress
from model_registry.pull import pull
from model_registry.records import Precision
from tests.doubles.registry_graphs import (
    CONTEXT,
    HEAD_SIZE,
    HEADS,
    files_of,
    genai_config,
    move_weights,
    write_browser_export,
    write_genai_folder,
    write_graph,
)


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    folder = tmp_path / "imported"
    folder.mkdir()
    return folder


def run(path: Path, destination: Path, options: ImportOptions | None = None) -> Imported:
    importer = choose(path)
    assert importer.name == "onnx_folder"
    return importer.run(path, destination, options or ImportOptions(), SilentProgress())


def test_a_genai_folder_is_taken_as_it_is(tmp_path, imported):
    source = write_genai_folder(tmp_path / "source")
    move_weights(source / "model.onnx", "model.onnx.data")
    (source / "modeling.py").write_text("import os")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    result = run(source, imported)
    assert (result.architecture, result.context_length, result.precision) == ("llama", CONTEXT, Precision.INT8)
    assert result.provider_family == "cpu"
    taken = files_of(imported)
    assert json.loads(taken.pop("genai_config.json")) == genai_config()
    expected = {name: body for name, body in files_of(source).items() if name not in ("modeling.py", "genai_config.json")}
    assert taken == expected


@pytest.mark.parametrize("may_link", [True, False])
def test_the_owner_s_files_are_copied_and_ours_are_linked(tmp_path, imported, may_link):
    source = write_genai_folder(tmp_path / "source")
    run(source, imported, ImportOptions(may_link=may_link))
    assert (source / "model.onnx").samefile(imported / "model.onnx") == may_link


@pytest.mark.parametrize(("bits", "precision"), [(4, Precision.INT4), (8, Precision.INT8), (0, Precision.FP32)])
def test_the_precision_is_read_from_the_graph(tmp_path, imported, bits, precision):
    assert run(write_genai_folder(tmp_path / "source", bits=bits), imported).precision == precision


def test_another_precision_than_the_model_s_cannot_be_had(tmp_path, imported):
    source = write_genai_folder(tmp_path / "source")
    with pytest.raises(UnsupportedModel, match="--precision int4"):
        run(source, imported, ImportOptions(precision=Precision.INT4))


def test_a_browser_export_gets_its_configuration(tmp_path, imported):
    result = run(write_browser_export(tmp_path / "source"), imported)
    assert (result.precision, result.context_length) == (Precision.INT4, CONTEXT)
    assert result.parameters["wrote_genai_config"] is True
    assert {"model_q4.onnx", "model_q4.onnx_data", "tokenizer.json", "config.json"} <= set(files_of(imported))
    config = json.loads((imported / "genai_config.json").read_text())
    decoder = config["model"]["decoder"]
    assert (decoder["num_hidden_layers"], decoder["num_key_value_heads"], decoder["head_size"]) == (1, HEADS, HEAD_SIZE)
    assert decoder["filename"] == "model_q4.onnx"
    assert "position_ids" not in decoder["inputs"]
    assert config["model"]["eos_token_id"] == [2, 3]
    assert config["search"]["temperature"] == 0.6


def test_one_graph_of_several_can_be_named(tmp_path, imported):
    source = write_browser_export(tmp_path / "source")
    write_graph(source / "onnx" / "model_fp32.onnx", bits=0)
    assert run(source / "onnx" / "model_fp32.onnx", imported).precision == Precision.FP32


def damage(folder: Path, case: str) -> None:
    graph = folder / "model.onnx"
    config = folder / "genai_config.json"
    if case == "cut graph":
        graph.write_bytes(graph.read_bytes()[:-40])
    elif case == "empty graph":
        graph.write_bytes(b"")
    elif case == "text for a graph":
        graph.write_text("version https://git-lfs.github.com/spec/v1")
    elif case == "no graph":
        graph.unlink()
    elif case == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif case == "bad tokenizer":
        (folder / "tokenizer.json").write_text("{}")
    elif case == "bad json":
        config.write_text("{")
    elif case == "deep json":
        config.write_text("[" * 100_000)
    elif case == "no model section":
        config.write_text("{}")
    elif case == "a list":
        config.write_text("[]")
    elif case == "no context":
        config.write_text(json.dumps(genai_config(context_length=None)))
    elif case == "graph outside":
        config.write_text(json.dumps(genai_config("../model.onnx")))
    elif case == "data missing":
        move_weights(graph, "model.onnx.data", write=False)
    elif case == "data cut":
        move_weights(graph, "model.onnx.data")
        (folder / "model.onnx.data").write_bytes(b"short")
    elif case == "data above":
        move_weights(graph, "../weights", write=False)
        (folder.parent / "weights").write_bytes(bytes(10_000))
    elif case == "data absolute":
        move_weights(graph, "/etc/passwd", write=False)


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("cut graph", "cut off"),
        ("empty graph", "cut off"),
        ("text for a graph", "cut off"),
        ("no graph", "missing"),
        ("no tokenizer", r"no tokenizer\.json"),
        ("bad tokenizer", "cannot be read"),
        ("bad json", "not readable JSON"),
        ("deep json", "not readable JSON"),
        ("no model section", "`model` section"),
        ("a list", "JSON object"),
        ("no context", "context_length"),
        ("graph outside", "outside the model's folder"),
        ("data missing", "missing"),
        ("data cut", "cut off"),
        ("data above", "outside the model's folder"),
        ("data absolute", "outside the model's folder"),
    ],
)
def test_damage_is_refused_by_name(tmp_path, imported, case, text):
    source = write_genai_folder(tmp_path / "source")
    damage(source, case)
    with pytest.raises(CorruptModel, match=text):
        run(source, imported)


WRONG = [5, -1, 1.5, True, "text", [], ["x"], {}, {"x": 1}, [None]]
FIELDS = {  # of genai_config.json, with the values of WRONG that they may have
    "model": [{}],
    "model.type": ["text"],
    "model.context_length": [5],
    "model.vocab_size": [5],
    "model.eos_token_id": [5, []],
    "model.bos_token_id": [5, -1],
    "model.pad_token_id": [5, -1],
    "model.decoder": [{}],
    "model.decoder.filename": ["text"],
    "model.decoder.num_hidden_layers": [5],
    "model.decoder.num_key_value_heads": [5],
    "model.decoder.head_size": [5],
    "model.decoder.inputs": [{}],
    "model.decoder.outputs": [{}],
    "model.decoder.session_options": [{}, {"x": 1}],
    "search": [{}, {"x": 1}],
    "search.do_sample": [True],
    "search.temperature": [5, 1.5],
    "search.top_k": [5, -1],
    "search.top_p": [],
    "search.min_p": [],
    "search.repetition_penalty": [5, 1.5],
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_configuration_of_other_types_is_refused_by_file(tmp_path, field):
    source = write_genai_folder(tmp_path / "source")
    good = [repr(value) for value in FIELDS[field]]  # by their text, since True equals 1
    for number, wrong in enumerate(value for value in WRONG if repr(value) not in good):
        config = genai_config()
        inner = config
        *path, last = field.split(".")
        for part in path:
            inner = inner[part]
        inner[last] = wrong
        (source / "genai_config.json").write_text(json.dumps(config))
        (destination := tmp_path / str(number)).mkdir()
        with pytest.raises((CorruptModel, UnsupportedModel), match=r"genai_config\.json|decoders in one graph"):
            run(source, destination)


@pytest.mark.parametrize(
    "options", [[{"../../../../tmp/x": {}}], [{"/tmp/x": {}}], [{"a\\b": {}}], [{"": {}}], 5, "cuda", {"cuda": {}}]
)
def test_a_provider_that_is_none_names_no_folder(tmp_path, registry, options):
    source = write_genai_folder(tmp_path / "source")
    config = genai_config()
    config["model"]["decoder"]["session_options"]["provider_options"] = options
    (source / "genai_config.json").write_text(json.dumps(config))
    with pytest.raises(CorruptModel, match=r"genai_config\.json"):
        pull(registry, str(source))
    assert registry.models() == ()


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("field", ["eos_token_id", "temperature", "num_attention_heads", "max_position_embeddings", "vocab_size"])
def test_a_browser_export_of_other_types_is_refused(tmp_path, name, field):
    source = write_browser_export(tmp_path / "source")
    for number, wrong in enumerate(["x", [1.5], {}, -2, ["</s>"]]):
        values = json.loads((source / name).read_text()) | {field: wrong}
        (source / name).write_text(json.dumps(values))
        if (field in ("eos_token_id", "temperature")) == (name == "generation_config.json"):
            with pytest.raises((CorruptModel, UnsupportedModel), match=field):
                run_first(source, folder_in(tmp_path, number), ImportOptions(), SilentProgress())


def folder_in(parent: Path, number: int) -> Path:
    (folder := parent / str(number)).mkdir()
    return folder


@pytest.mark.parametrize("end", range(0, 700, 37))
def test_a_graph_cut_anywhere_is_refused(tmp_path, imported, end):
    source = write_genai_folder(tmp_path / "source")
    body = (source / "model.onnx").read_bytes()
    assert len(body) > 700
    (source / "model.onnx").write_bytes(body[:end])
    with pytest.raises(RegistryError):
        run(source, imported)


@pytest.mark.parametrize("part", ["vision", "speech", "embedding", "encoder"])
def test_more_than_a_decoder_is_refused_by_name(tmp_path, imported, part):
    source = write_genai_folder(tmp_path / "source")
    (source / "genai_config.json").write_text(json.dumps(genai_config(type="gemma3", **{part: {}})))
    with pytest.raises(UnsupportedModel, match=rf"gemma3.*{part}"):
        run(source, imported)


def test_a_browser_export_with_another_attention_is_refused_by_name(tmp_path, imported):
    source = write_browser_export(tmp_path / "source")
    write_graph(next(source.rglob("*.onnx")), attention="MultiHeadAttention", bits=4)
    with pytest.raises(UnsupportedModel, match=r"llama.*GroupQueryAttention"):
        run(source, imported)


def test_a_genai_folder_with_another_attention_is_marked_for_genai(tmp_path, imported):
    source = write_genai_folder(tmp_path / "source")
    assert run(source, imported).parameters["graph"] == "gqa"
    write_graph(next(source.rglob("*.onnx")), attention="MultiHeadAttention", bits=4)
    again = tmp_path / "again"
    again.mkdir()
    assert run(source, again).parameters["graph"] == "other"


def test_a_browser_export_without_sizes_is_refused(tmp_path, imported):
    source = write_browser_export(tmp_path / "source")
    (source / "config.json").write_text(json.dumps({"model_type": "odd"}))
    with pytest.raises(UnsupportedModel, match=r"config\.json lacks"):
        run(source, imported)


def test_the_importers_are_importers_and_refuse_the_rest(tmp_path):
    assert all(isinstance(importer, Importer) for importer in all_importers())
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UnsupportedModel, match=r"notes\.txt"):
        choose(tmp_path / "notes.txt")
    with pytest.raises(UnsupportedModel, match="known formats"):
        choose(tmp_path, (OnnxFolderImporter(),))
