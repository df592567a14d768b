"""Metadata of other types than are read: each is one error that names the key, or does not matter. Warnings of the rest."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_registry.conversion.decoder.genai_config import genai_config
from model_registry.conversion.formats.gguf import reader
from model_registry.conversion.formats.gguf.architecture import read_architecture
from model_registry.conversion.formats.gguf.importer import tensor_info
from model_registry.conversion.formats.gguf.metadata import Metadata
from model_registry.conversion.formats.gguf.reader import open_gguf
from model_registry.conversion.formats.gguf.texts import SAMPLING_KEYS, text_facts, tokenizer_config
from model_registry.conversion.formats.gguf.tokenizer import build_tokenizer, read_vocabulary
from model_registry.conversion.source import EMBEDDING, check_tensors
from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.pull import pull
from model_registry.registry import Registry, open_registry
from tests.doubles.tiny_gguf import GEMMA, Tiny, write_gguf

pytestmark = pytest.mark.model

NAN, INFINITY = float("nan"), float("inf")
WRONG: list[Any] = [
    *("text", "", -1, 0, 3, 1 << 62, 1.5, -2.0, NAN, INFINITY, True, ["a", "b"], []),
    *(np.array([1, 2], np.int32), np.array([0.5], np.float32), np.array([], np.int32), np.full(300, 7, np.uint8)),
]
LLAMA_KEYS = [
    *("general.architecture", "general.alignment", "general.license", "split.count", "llama.vocab_size", "llama.expert_count"),
    *(f"llama.{key}" for key in ("embedding_length", "feed_forward_length", "block_count", "context_length")),
    *(f"llama.attention.{key}" for key in ("head_count", "head_count_kv", "key_length", "value_length", "scale", "sliding_window")),
    *("llama.attention.layer_norm_rms_epsilon", "llama.attn_logit_softcapping", "llama.final_logit_softcapping"),
    *(f"llama.rope.{key}" for key in ("freq_base", "dimension_count", "scale_linear", "scaling.type", "scaling.factor")),
    *(f"tokenizer.ggml.{key}" for key in ("model", "pre", "tokens", "token_type", "merges", "scores", "add_bos_token")),
    *(f"tokenizer.ggml.{key}_token_id" for key in ("bos", "eos", "eot", "eom", "unknown", "padding")),
    *("tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_space_prefix", "tokenizer.chat_template"),
    *(f"general.sampling.{key}" for key in SAMPLING_KEYS),
]
GEMMA_KEYS = [f"gemma3.{key}" for key in ("attention.sliding_window_pattern", "rope.freq_base_swa", "attention.sliding_window")]
YARN_KEYS = [f"llama.rope.scaling.{key}" for key in ("original_context_length", "yarn_beta_fast", "yarn_beta_slow", "attn_factor")]
YARN = Tiny(metadata={"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0})


def read_all(source: reader.GgufFile, values: dict[str, Any]) -> None:
    """Everything that an import reads of the metadata, without the weights."""
    metadata = Metadata(values)
    network = read_architecture(metadata)
    check_tensors({name: tensor_info(stored) for name, stored in source.tensors.items()}, network)
    num_rows = source.tensors[EMBEDDING].shape[0]
    vocabulary = read_vocabulary(metadata, num_rows)
    build_tokenizer(metadata, vocabulary)
    tokenizer_config(metadata, network, vocabulary)
    genai_config(network, text_facts(metadata, network, vocabulary, num_rows), num_rows)
    network.layer_rope(0).frequencies(network.head_size, None)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, reader.GgufFile]:
    folder = tmp_path_factory.mktemp("files")
    models = {"llama": Tiny(), "pieces": Tiny(tokenizer="llama"), "yarn": YARN, "gemma": GEMMA}
    return {name: open_gguf(write_gguf(folder / f"{name}.gguf", tiny)) for name, tiny in models.items()}


@pytest.mark.parametrize(
    ("model", "key"),
    [
        *(("llama", key) for key in LLAMA_KEYS),
        *(("pieces", key) for key in LLAMA_KEYS if key.startswith("tokenizer")),
        *(("yarn", key) for key in YARN_KEYS),
        *(("gemma", key) for key in GEMMA_KEYS),
    ],
)
def test_a_value_of_another_type_is_an_error_by_name_or_does_not_matter(
    files: dict[str, reader.GgufFile], model: str, key: str
) -> None:
    source = files[model]
    read_all(source, dict(source.metadata.values))
    for wrong in WRONG:
        with contextlib.suppress(CorruptModel, UnsupportedModel):
            read_all(source, {**source.metadata.values, key: wrong})


@pytest.mark.parametrize("count", [reader.MAX_VALUES + 1, 1 << 62])
def test_counts_beyond_all_models(tmp_path: Path, count: int) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", Tiny())
    body = bytearray(path.read_bytes())
    body[16:24] = count.to_bytes(8, "little")
    path.write_bytes(bytes(body) + bytes(1 << 20))
    with pytest.raises(CorruptModel, match="metadata values"):
        open_gguf(path)


def test_a_list_of_more_texts_than_any_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_TEXTS", 100)
    with pytest.raises(CorruptModel, match="texts"):
        open_gguf(write_gguf(tmp_path / "tiny.gguf", Tiny()))


def tiny(**metadata: Any) -> Tiny:
    return Tiny(metadata={key.replace("__", "."): value for key, value in metadata.items()})


@pytest.mark.parametrize(
    ("model", "expected_text"),
    [
        (tiny(), []),
        (tiny(tokenizer__chat_template="{% for m in messages %}"), [r"tokenizer_config\.json does not compile.*Completions work"]),
        (tiny(tokenizer__chat_template="{{ messages|nothing }}"), ["it uses 'nothing', which there is not"]),
        (tiny(tokenizer__chat_template="{{ (" + "(" * 20_000), ["does not compile"]),
        (tiny(tokenizer__chat_template="{% for m in messages %}{% break %}{% endfor %}{{ 'x' * 99999999999 }}"), []),
        (tiny(llama__vocab_size=7), ["vocab_size 7, but its embedding has"]),
        (tiny(tokenizer__ggml__pre=None), ["does not name its pre-tokenizer"]),
        (tiny(tokenizer__ggml__eos_token_id=None, tokenizer__ggml__token_type=None), ["names no token that ends"]),
    ],
)  # fmt: skip
def test_what_only_limits_the_model_is_kept_as_a_warning(
    tmp_path: Path, registry: Registry, model: Tiny, expected_text: list[str]
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", model)
    version = pull(registry, str(path))
    assert len(version.manifest.warnings) == len(expected_text)
    for warning, pattern in zip(version.manifest.warnings, expected_text, strict=True):
        assert re.search(pattern, warning)
    with open_registry(registry.home) as again:
        assert again.resolve("tiny").manifest.warnings == version.manifest.warnings
