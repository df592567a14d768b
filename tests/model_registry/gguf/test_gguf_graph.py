"""The imported graph computes the source's logits, for every family and precision, whole and in chunks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_registry.conversion.formats.gguf.importer import open_source
from model_registry.conversion.measure.reference import reference_logits
from model_registry.records import Precision
from tests.doubles.tiny_gguf import GEMMA, ImportTiny, Tiny, run_graph, write_gguf

pytestmark = pytest.mark.model

IDS = np.random.default_rng(3).integers(3, 250, 40)
YARN = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
FAMILIES = {
    "llama": Tiny(),
    "llama-tied": Tiny(tied=True),
    "llama-biases": Tiny(qkv_bias=True),
    "llama-one-kv-head": Tiny(kv_heads=1),
    "llama-linear-rope": Tiny(metadata={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}),
    "llama3-rope": Tiny(tensors={"rope_freqs.weight": np.linspace(1, 8, 8, dtype=np.float32)}),
    "llama-yarn": Tiny(metadata={**YARN, "llama.rope.scaling.original_context_length": 16}),
    "llama-window": Tiny(metadata={"llama.attention.sliding_window": 9}),
    "llama-f16": Tiny(weight_type="F16"),
    "smollm3": Tiny("smollm3", layers=5, tied=True),
    "qwen2": Tiny("qwen2", qkv_bias=True, tied=True),
    "qwen3": Tiny("qwen3", head_size=32),
    "gemma3": GEMMA,
    "gemma3-without-window": replace(GEMMA, metadata={}),
}


def truth(path: Path) -> NDArray[np.float32]:
    return np.concatenate(list(reference_logits(open_source(path), [IDS])))


@pytest.mark.parametrize("tiny", FAMILIES.values(), ids=FAMILIES.keys())
def test_fp32_graph_equals_the_source(tiny: Tiny, import_tiny: ImportTiny) -> None:
    model = import_tiny(tiny)
    logits, _ = run_graph(model.session(), IDS.tolist())
    np.testing.assert_allclose(logits, truth(model.source), atol=1e-3)


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gemma3"])
def test_fp16_graph_is_half_as_large_and_almost_the_source(name: str, import_tiny: ImportTiny) -> None:
    model = import_tiny(FAMILIES[name], Precision.FP16)
    logits, _ = run_graph(model.session(), IDS.tolist())
    np.testing.assert_allclose(logits, truth(model.source), atol=5e-2)
    matrices = sum(info.num_values for info in open_source(model.source).tensors.values() if len(info.shape) > 1)
    assert (model.folder / "model.onnx.data").stat().st_size < 3 * matrices  # bytes; norms, tables, and room between


@pytest.mark.parametrize("tiny", FAMILIES.values(), ids=FAMILIES.keys())
def test_int8_graph_is_near_the_source(tiny: Tiny, import_tiny: ImportTiny) -> None:
    model = import_tiny(tiny, Precision.INT8)
    logits, _ = run_graph(model.session(), IDS.tolist())
    expected = truth(model.source)
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.99
    assert np.abs(logits - expected).max() > 1e-2  # it really was quantized


def test_int4_graph_resembles_the_source(import_tiny: ImportTiny) -> None:
    model = import_tiny(Tiny(), Precision.INT4)
    logits, _ = run_graph(model.session(), IDS.tolist())
    assert np.corrcoef(logits.ravel(), truth(model.source).ravel())[0, 1] > 0.9


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_auto_keeps_lossless_types(kind: str, import_tiny: ImportTiny) -> None:
    model = import_tiny(Tiny(weight_type=kind, tied=True), Precision.AUTO)
    assert model.imported.precision == {"Q8_0": Precision.INT8, "Q4_0": Precision.INT4}[kind]
    logits, _ = run_graph(model.session(), IDS.tolist())
    expected = truth(model.source)  # what remains is the rounding of activations
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", ["llama", "llama-window", "smollm3", "qwen3", "gemma3"])
def test_chunks_on_top_of_a_past_equal_the_whole(name: str, import_tiny: ImportTiny) -> None:
    session = import_tiny(FAMILIES[name], Precision.INT8).session()
    whole, _ = run_graph(session, IDS.tolist())
    first, past = run_graph(session, IDS[:17].tolist())
    second, past = run_graph(session, IDS[17:39].tolist(), past)
    last, _ = run_graph(session, IDS[39:].tolist(), past)
    np.testing.assert_allclose(np.concatenate([first, second, last]), whole, atol=2e-4)


@pytest.mark.parametrize("name", ["llama-window", "gemma3"])
def test_rows_of_different_lengths_decode_as_alone(name: str, import_tiny: ImportTiny) -> None:
    """Both longer than the window; the shorter row is padded at its end, as the rows of a batch are."""
    session = import_tiny(FAMILIES[name]).session()
    lengths, step = (25, 14), IDS[-2:]
    pasts = [run_graph(session, IDS[:length].tolist())[1] for length in lengths]
    alone = [run_graph(session, [token], past)[0] for token, past in zip(step.tolist(), pasts, strict=True)]
    room = [(0, 0), (0, 0), (0, lengths[0] - lengths[1]), (0, 0)]
    together = {key: np.concatenate([pasts[0][key], np.pad(pasts[1][key], room, constant_values=99)]) for key in pasts[0]}
    mask = np.arange(lengths[0] + 1) < np.array(lengths)[:, None] + 1
    feeds = {"input_ids": step[:, None], "attention_mask": mask.astype(np.int64), **together}
    (logits,) = session.run(["logits"], feeds)
    np.testing.assert_allclose(logits[:, 0], np.concatenate(alone), atol=1e-4)


def test_a_token_sees_the_window_and_nothing_before_it(tmp_path: Path) -> None:
    """One layer with a window of 9: the last token's logits change with the ninth token from the end, not with the tenth."""
    path = write_gguf(tmp_path / "tiny.gguf", replace(GEMMA, layers=1))
    source = open_source(path)
    changed = {}
    for back in (9, 10):
        ids = IDS.copy()
        ids[-back] = 2
        pieces = reference_logits(source, [ids])
        changed[back] = np.abs(np.concatenate(list(pieces))[-1] - truth(path)[-1]).max()
    assert changed[9] > 1e-3
    assert changed[10] == 0


def test_rotary_rows_of_llama_are_put_back(tmp_path: Path) -> None:
    """The same numbers mean another network when the family's halves are not interleaved."""
    llama = truth(write_gguf(tmp_path / "llama.gguf", Tiny()))
    qwen = truth(write_gguf(tmp_path / "qwen2.gguf", replace(Tiny(), architecture="qwen2")))
    assert np.abs(llama - qwen).max() > 0.1


def test_a_tied_embedding_lies_in_the_file_once(import_tiny: ImportTiny) -> None:
    import onnx

    folder = import_tiny(Tiny(tied=True), Precision.INT8).folder
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.name.startswith("lm_head.weight")
    }
    assert places["lm_head.weight.rows"] == places["lm_head.weight.q"]


def test_large_weights_are_aligned_external_data(import_tiny: ImportTiny) -> None:
    import onnx

    folder = import_tiny(Tiny(), Precision.INT8).folder
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in model.graph.initializer]
    large = [place for place in places if int(place.get("length", 0)) >= 4096]
    assert large
    assert all(int(place["offset"]) % 4096 == 0 and place["location"] == "model.onnx.data" for place in large)
