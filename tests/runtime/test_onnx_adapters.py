"""LoRA adapters beside a model: a row's answer is the merged model's, whoever else is in the step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_registry.conversion.decoder.matrix import rotary_order
from model_registry.conversion.formats.gguf.importer import GgufImporter, open_source
from model_registry.conversion.importer import ImportOptions
from model_registry.errors import UnsupportedModel
from model_registry.progress import SilentProgress
from model_registry.records import Precision
from runtime.engines.model_folder import read_model_folder
from runtime.engines.onnx.adapters import GraphAdapters, check_adapters
from runtime.engines.onnx.decoder import OnnxDecoder
from runtime.engines.onnx.engine import build_onnx_engine
from runtime.engines.onnx.graph import prepare_decoder
from runtime.protocol.errors import InvalidRequest
from runtime.protocol.messages import EngineOptions, Submit
from runtime.protocol.request import SamplingParams, TokensPrompt
from tests.doubles.peft_folder import Matrices, random_matrices, write_peft
from tests.doubles.tiny_gguf import Tiny, write_gguf

pytestmark = pytest.mark.model

TINY = Tiny(layers=2)
SIZES = {
    "q_proj": (64, 64),
    "k_proj": (32, 64),
    "v_proj": (32, 64),
    "o_proj": (64, 64),
    "gate_proj": (96, 64),
    "up_proj": (96, 64),
    "down_proj": (64, 96),
}
TENSORS = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
RANK, ALPHA = 4, 8.0
PROMPTS = np.array([[5, 9, 30, 31, 7], [8, 40, 41, 2, 77], [60, 61, 62, 63, 64]], np.int32)


def imported(path: Path, tiny: Tiny, precision: Precision) -> Path:
    folder = path / "built"
    folder.mkdir(parents=True)
    GgufImporter().run(write_gguf(path / "tiny.gguf", tiny), folder, ImportOptions(precision=precision), SilentProgress())
    return folder


def merged(path: Path, matrices: Matrices, precision: Precision) -> Path:
    """The model with the adapter in its weights, as GGUF's rows are ordered."""
    source = open_source(write_gguf(path.with_suffix(".gguf"), TINY))
    tensors = {}
    for (layer, module), (a, b) in matrices.items():
        name = f"blk.{layer}.{TENSORS[module]}.weight"
        values, change = source.read(name).copy(), (b @ a) * (ALPHA / RANK)
        heads = {"q_proj": TINY.heads, "k_proj": TINY.kv_heads}.get(module)
        order = slice(None) if heads is None else rotary_order(heads, TINY.head_size)
        values[order] += change
        tensors[name] = values
    return imported(path, replace(TINY, tensors=tensors), precision)


def decoder(folder: Path, adapters: dict[str, Path] | None = None) -> OnnxDecoder:
    graph = GraphAdapters(adapters, folder) if adapters else None
    return OnnxDecoder(read_model_folder(folder), num_slots=4, threads=1, context=64, adapters=graph)


def logits(runner: OnnxDecoder, chosen: list[int]) -> NDArray[np.float32]:
    """After three prompts, and after one more token of each in one step: [2, 3, vocab]."""
    first = [runner.prefill(row, PROMPTS[row], 0, adapter=chosen[row])[0].copy() for row in range(3)]
    step = runner.decode(np.array([11, 12, 13], np.int32), np.full(3, 6, np.int32), np.array(chosen, np.int32))
    return np.stack([np.stack(first), step.copy()])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Matrices]:
    return {
        "one": random_matrices(SIZES, layers=2, rank=RANK, seed=1),
        "other": random_matrices({"v_proj": SIZES["v_proj"], "down_proj": SIZES["down_proj"]}, layers=2, rank=RANK, seed=2),
    }


def each_alone(path: Path, matrices: dict[str, Matrices], precision: Precision) -> list[NDArray[np.float32]]:
    """Logits of all rows by the base, and by each merged model."""
    bases = [imported(path / "alone", TINY, precision)]
    bases += [merged(path / f"merged-{name}", each, precision) for name, each in matrices.items()]
    return [logits(decoder(base), [0, 0, 0]) for base in bases]


def test_rows_with_different_adapters_answer_as_the_merged_models(tmp_path: Path, two: dict[str, Matrices]) -> None:
    base = imported(tmp_path / "base", TINY, Precision.FP32)
    folders = {name: write_peft(tmp_path / name, matrices, alpha=ALPHA) for name, matrices in two.items()}
    mixed = logits(decoder(base, folders), [0, 1, 2])
    alone = each_alone(tmp_path, two, Precision.FP32)
    for row, expected in enumerate(alone):
        np.testing.assert_allclose(mixed[:, row], expected[:, row], atol=1e-4)
        assert all(np.abs(mixed[:, row] - other[:, row]).max() > 0.5 for other in alone if other is not expected)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
def test_adapters_are_as_near_the_truth_as_a_merged_model(tmp_path: Path, two: dict[str, Matrices], precision: Precision) -> None:
    """Smoothing included: the importer divides inputs, and an adapter must know by what. Products of 8 bits are widened, others
    have a second product beside them."""
    base = imported(tmp_path / "base", TINY, precision)
    folders = {name: write_peft(tmp_path / name, matrices, alpha=ALPHA) for name, matrices in two.items()}
    mixed = logits(decoder(base, folders), [0, 1, 2])
    exact = each_alone(tmp_path / "exact", two, Precision.FP32)
    rounded = each_alone(tmp_path / "rounded", two, precision)
    for row in range(3):
        by_rounding = rounded[row][:, row] - exact[row][:, row]
        assert np.linalg.norm(mixed[:, row] - exact[row][:, row]) < 2 * np.linalg.norm(by_rounding)


def test_a_row_keeps_its_answer_whoever_is_beside_it(tmp_path: Path, two: dict[str, Matrices]) -> None:
    base = imported(tmp_path / "base", TINY, Precision.INT8)
    folders = {name: write_peft(tmp_path / name, matrices, alpha=ALPHA) for name, matrices in two.items()}
    runner = decoder(base, folders)
    assert np.array_equal(logits(runner, [1, 0, 2])[:, 1], logits(runner, [2, 0, 1])[:, 1])


@pytest.mark.parametrize("ranks", [(16,), (8, 9, 40), (64, 30, 20)])
def test_ranks_of_any_sizes_lie_side_by_side(tmp_path: Path, ranks: tuple[int, ...]) -> None:
    """More than a block, less than one, and such as fill none: against the same adapters beside weights that are not rounded."""
    folders = {
        f"r{rank}": write_peft(tmp_path / f"r{rank}", random_matrices(SIZES, layers=2, rank=rank, seed=rank, size=0.1), alpha=rank)
        for rank in ranks
    }
    chosen = [(row % len(ranks)) + 1 for row in range(2)] + [0]
    exact = logits(decoder(imported(tmp_path / "exact", TINY, Precision.FP32), folders), chosen)
    rounded = logits(decoder(imported(tmp_path / "rounded", TINY, Precision.INT8), folders), chosen)
    alone = logits(decoder(imported(tmp_path / "alone", TINY, Precision.INT8)), [0, 0, 0])
    np.testing.assert_allclose(rounded[:, 2], alone[:, 2], atol=1e-3)  # a row without an adapter is as without any
    for row in range(2):
        assert np.linalg.norm(rounded[:, row] - exact[:, row]) < 0.1 * np.linalg.norm(exact[:, row])
        assert np.abs(rounded[:, row] - alone[:, row]).max() > 0.5


def test_matrices_are_supplied_and_not_part_of_the_model(tmp_path: Path, two: dict[str, Matrices]) -> None:
    """A session keeps what a model holds, beside what its kernels make of it: they would be in memory twice."""
    base = imported(tmp_path / "base", TINY, Precision.INT8)
    graph = GraphAdapters({"one": write_peft(tmp_path / "one", two["one"], alpha=ALPHA)}, base)
    shape = read_model_folder(base).decoder
    plain = prepare_decoder(shape.path, past_key=shape.past_key % 0)
    edited = prepare_decoder(shape.path, past_key=shape.past_key % 0, edit=graph.add_to)
    supplied = sum(make().nbytes for make in edited.weights.values())
    assert supplied > 60_000
    assert len(edited.serialized) < len(plain.serialized) + supplied / 2


def test_threads_change_without_losing_the_adapters(tmp_path: Path, two: dict[str, Matrices]) -> None:
    base = imported(tmp_path / "base", TINY, Precision.FP32)
    runner = decoder(base, {"one": write_peft(tmp_path / "one", two["one"], alpha=ALPHA)})
    before = logits(runner, [1, 0, 1])
    runner.set_threads(2)
    np.testing.assert_allclose(logits(runner, [1, 0, 1]), before, rtol=1e-4, atol=1e-4)


def test_prefixes_are_not_shared_between_adapters(tmp_path: Path, two: dict[str, Matrices]) -> None:
    base = imported(tmp_path / "base", TINY, Precision.FP32)
    adapters = {name: str(write_peft(tmp_path / name, matrices, alpha=ALPHA)) for name, matrices in two.items()}
    engine = build_onnx_engine(base, EngineOptions(num_slots=8, threads=1, adapters=adapters))
    assert engine.info.adapters == ("one", "other")
    ids = list(range(5, 25))

    def answered(number: int, adapter: str | None) -> tuple[list[int], int]:
        params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
        engine.add(engine.prepare(Submit(request=number, prompt=TokensPrompt(token_ids=ids), params=params, adapter=adapter)))
        while True:
            for end in engine.step().finished:
                return end.token_ids, end.usage.cached_tokens

    names = (None, "one", "other")
    first = [answered(number, name) for number, name in enumerate(names)]
    again = [answered(10 + number, name) for number, name in enumerate(names)]
    assert [cached for _, cached in first] == [0, 0, 0]
    assert all(cached > 0 for _, cached in again)
    assert [ids for ids, _ in first] == [ids for ids, _ in again]
    assert len({tuple(ids) for ids, _ in first}) == 3
    with pytest.raises(InvalidRequest, match="'third'"):
        answered(30, "third")
    engine.close()


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    base = imported(tmp_path / "base", TINY, Precision.FP32)
    wide = write_peft(tmp_path / "wide", random_matrices({"o_proj": (64, 128)}, layers=1, rank=2, seed=3), alpha=1)
    with pytest.raises(UnsupportedModel, match="64 x 128; the model's is 64 x 64"):
        check_adapters({"wide": wide}, base)
    deep = write_peft(tmp_path / "deep", random_matrices({"o_proj": (64, 64)}, layers=3, rank=2, seed=3), alpha=1)
    with pytest.raises(UnsupportedModel, match="layer 2, which the model does not have"):
        check_adapters({"deep": deep}, base)


def test_a_build_that_hides_its_smoothing_is_refused(tmp_path: Path, two: dict[str, Matrices]) -> None:
    base = imported(tmp_path / "base", TINY, Precision.INT8)
    (base / "smoothing.npz").unlink()
    with pytest.raises(UnsupportedModel, match="import the model again"):
        check_adapters({"one": write_peft(tmp_path / "one", two["one"], alpha=ALPHA)}, base)
