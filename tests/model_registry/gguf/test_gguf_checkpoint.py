"""A GGUF file as a checkpoint is equivalent to its source: transformers' logits are those of the NumPy reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model_registry.conversion.formats.checkpoint.writer import check_layers_alike, keep_layers, write_checkpoint
from model_registry.conversion.formats.gguf.importer import open_source
from model_registry.conversion.measure.reference import reference_logits
from model_registry.errors import UnsupportedModel
from tests.doubles.tiny_gguf import GEMMA, Tiny, write_gguf

pytestmark = pytest.mark.train

YARN = {
    "llama.rope.scaling.type": "yarn",
    "llama.rope.scaling.factor": 4.0,
    "llama.rope.scaling.original_context_length": 16,
}
MODELS = {
    "llama": Tiny(),
    "llama tied": Tiny(tied=True),
    "llama q4_1": Tiny(weight_type="Q4_1"),
    "llama linear": Tiny(metadata={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}),
    "llama yarn": Tiny(metadata=YARN),
    "qwen2": Tiny("qwen2", qkv_bias=True),
    "qwen3": Tiny("qwen3"),
    "smollm3": Tiny("smollm3", layers=5),
    "gemma3": GEMMA,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("tiny", MODELS.values(), ids=MODELS.keys())
def test_the_same_logits(tmp_path: Path, tiny: Tiny) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    path = write_gguf(tmp_path / "tiny.gguf", tiny)
    (folder := tmp_path / "checkpoint").mkdir()
    source = open_source(path)
    write_checkpoint(source, folder, bos_id=0, eos_ids=[2])
    ids = np.arange(40, dtype=np.int64) * 7 % 250
    expected = np.concatenate(list(reference_logits(source, [ids])))
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.no_grad():
        actual = model(torch.from_numpy(ids[None])).logits[0].numpy()
    np.testing.assert_allclose(actual, expected, atol=2e-3, rtol=1e-3)


def test_factors_that_a_checkpoint_cannot_express_are_refused(tmp_path: Path) -> None:
    factors = {"rope_freqs.weight": np.ones(8, np.float32)}
    path = write_gguf(tmp_path / "tiny.gguf", Tiny(tensors=factors))
    with pytest.raises(UnsupportedModel, match="rotary factors"):
        write_checkpoint(open_source(path), tmp_path, bos_id=0, eos_ids=[2])


def test_a_configuration_is_rewritten_for_some_of_its_layers(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 1]}))
    check_layers_alike(tmp_path)
    keep_layers(tmp_path, [0, 2, 3])
    assert json.loads(path.read_text()) == {"model_type": "llama", "num_hidden_layers": 3, "no_rope_layers": [1, 1, 1]}
    path.write_text(json.dumps({"model_type": "smollm3", "no_rope_layers": [1, 0, 1]}))
    with pytest.raises(UnsupportedModel, match="several kinds"):
        check_layers_alike(tmp_path)
