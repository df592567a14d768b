"""A model's folder is read as it is, and what is missing or garbled is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.engines.model_folder import BadModelFolder, GenerationDefaults, ModelFolder, read_model_folder

DECODER = {"filename": "model.onnx", "num_hidden_layers": 2, "num_key_value_heads": 1, "head_size": 8}


def config(**model: Any) -> dict[str, Any]:
    return {"model": {"type": "llama", "context_length": 64, "vocab_size": 10, "eos_token_id": 2, "decoder": DECODER} | model}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "genai_config.json").write_text(json.dumps(config()))
    return tmp_path


def write(folder: Path, name: str, content: Any) -> ModelFolder:
    (folder / name).write_text(json.dumps(content))
    return read_model_folder(folder)


def test_a_small_folder_is_enough(folder: Path) -> None:
    model = read_model_folder(folder)
    assert (model.architecture, model.context_length, model.vocab_size, model.eos_ids) == ("llama", 64, 10, frozenset({2}))
    assert model.decoder.past_key % 1 == "past_key_values.1.key"
    assert model.decoder.present_value % 0 == "present.0.value"
    assert model.chat_template is None


def test_names_of_the_graph_are_the_folders_own(folder: Path) -> None:
    named = DECODER | {"inputs": {"past_key_names": "pk_%d"}, "outputs": {"present_value_names": "pv_%d"}}
    decoder = write(folder, "genai_config.json", config(decoder=named)).decoder
    assert (decoder.past_key, decoder.present_value) == ("pk_%d", "pv_%d")


def test_several_tokens_may_end_an_answer(folder: Path) -> None:
    assert write(folder, "genai_config.json", config(eos_token_id=[2, 5])).eos_ids == {2, 5}


def test_the_chat_template_is_found_in_each_of_its_places(folder: Path) -> None:
    assert write(folder, "tokenizer_config.json", {"chat_template": "one"}).chat_template == "one"
    named = [{"name": "rag", "template": "x"}, {"name": "default", "template": "two"}]
    assert write(folder, "tokenizer_config.json", {"chat_template": named}).chat_template == "two"
    (folder / "chat_template.jinja").write_text("thrée", encoding="utf-8")
    assert read_model_folder(folder).chat_template == "thrée"


def test_special_tokens_of_both_spellings(folder: Path) -> None:
    model = write(folder, "tokenizer_config.json", {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": None})
    assert model.special_tokens == {"bos_token": "<s>", "eos_token": "</s>"}


def test_sampling_defaults_count_only_from_a_model_that_samples(folder: Path) -> None:
    assert read_model_folder(folder).defaults == GenerationDefaults()
    greedy = config() | {"search": {"do_sample": False, "temperature": 0.1}}
    assert write(folder, "genai_config.json", greedy).defaults == GenerationDefaults()
    sampling = config() | {"search": {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": None}}
    assert write(folder, "genai_config.json", sampling).defaults == GenerationDefaults(temperature=0.6, top_k=20, top_p=1.0)
    own = write(folder, "generation_config.json", {"temperature": 0.5, "repetition_penalty": 1.05})
    assert own.defaults == GenerationDefaults(temperature=0.5, top_p=1.0, repetition_penalty=1.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": "warm"},
        {"temperature": True},
        {"top_k": -2, "top_p": 0, "min_p": 1.5, "repetition_penalty": 0},
        {"top_p": 1.5, "repetition_penalty": float("nan")},
        {"min_p": -0.1, "repetition_penalty": [1.1]},
    ],
)
def test_a_default_that_no_request_could_set_is_left_out(folder: Path, wrong: dict[str, Any]) -> None:
    assert write(folder, "generation_config.json", wrong).defaults == GenerationDefaults()


@pytest.mark.parametrize("name", ["genai_config.json", "model.onnx", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BadModelFolder, match=f"{name} is missing"):
        read_model_folder(folder)


@pytest.mark.parametrize("name", ["genai_config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b"null", b""])
def test_a_garbled_file_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(BadModelFolder, match=name):
        read_model_folder(folder)


def test_a_garbled_chat_template_is_named(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadModelFolder, match=r"chat_template\.jinja"):
        read_model_folder(folder)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"eos_token_id": None}, "eos_token_id|NoneType"),
        ({"decoder": {}}, "filename"),
        ({"decoder": []}, "genai_config"),
        ({"context_length": "long"}, "long"),
        ({"vocab_size": None}, "genai_config"),
    ],
)
def test_a_config_that_cannot_be_used_is_named(folder: Path, changed: dict[str, Any], named: str) -> None:
    with pytest.raises(BadModelFolder, match=named):
        write(folder, "genai_config.json", config(**changed))


def test_a_config_without_a_model_is_named(folder: Path) -> None:
    with pytest.raises(BadModelFolder, match=r"genai_config\.json.*'model'"):
        write(folder, "genai_config.json", {"search": {}})
