"""Damaged checkpoints: every one ends as one error that names the file, publishes nothing, and its download is dropped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_registry.conversion.formats.checkpoint.writer import WEIGHTS, write_checkpoint
from model_registry.conversion.formats.gguf.importer import GgufImporter, open_source
from model_registry.conversion.importer import ImportOptions
from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.progress import SilentProgress
from model_registry.pull import pull
from model_registry.records import Precision
from model_registry.registry import Registry
from tests.doubles.registry_http import LocalServer, add_repository
from tests.doubles.tiny_gguf import Tiny, write_gguf

pytestmark = pytest.mark.model

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    gguf = write_gguf(folder / "tiny.gguf", Tiny())
    (folder / "twin").mkdir()
    GgufImporter().run(gguf, folder / "twin", ImportOptions(Precision.FP32, measure=False), SilentProgress())
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    write_checkpoint(open_source(gguf), checkpoint, bos_id=0, eos_ids=[2])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(folder / "twin" / name, checkpoint / name)
    (checkpoint / "generation_config.json").write_text('{"eos_token_id": [2], "do_sample": true, "temperature": 0.6}')
    return checkpoint


def in_json(name: str, **changes: Any) -> Damage:
    """Fields of a JSON file are replaced, or left out where they are MISSING."""

    def change(folder: Path) -> None:
        values = json.loads((folder / name).read_text()) | changes
        kept = {key: value for key, value in values.items() if value is not MISSING}
        (folder / name).write_text(json.dumps(kept))

    return change


MISSING = object()


def config(**changes: Any) -> Damage:
    return in_json("config.json", **changes)


def tokenizer(**changes: Any) -> Damage:
    return in_json("tokenizer.json", **changes)


def template(**changes: Any) -> Damage:
    return in_json("tokenizer_config.json", **changes)


def generation(**changes: Any) -> Damage:
    return in_json("generation_config.json", **changes)


def text(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def cut(name: str, share: float) -> Damage:
    def change(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(len(whole) * share)])

    return change


def header(edit: Callable[[dict[str, Any]], Any]) -> Damage:
    """The safetensors header is edited and written back with its new length."""

    def change(folder: Path) -> None:
        whole = (folder / WEIGHTS).read_bytes()
        size = int.from_bytes(whole[:8], "little")
        values = json.loads(whole[8 : 8 + size])
        edited = edit(values)
        raw = json.dumps(values if edited is None else edited).encode()
        (folder / WEIGHTS).write_bytes(len(raw).to_bytes(8, "little") + raw + whole[8 + size :])

    return change


def tensor(**changes: Any) -> Damage:
    """Of one tensor's entry in the header."""

    def edit(values: dict[str, Any]) -> None:
        values["model.norm.weight"] |= changes

    return header(edit)


def length(size: int) -> Damage:
    def change(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(size.to_bytes(8, "little") + (folder / WEIGHTS).read_bytes()[8:])

    return change


def overlapping(values: dict[str, Any]) -> None:
    first, second = (name for name in values if name.endswith("input_layernorm.weight"))
    values[first]["data_offsets"] = values[second]["data_offsets"]


def one_tensor(shape: list[int], num_bytes: int, dtype: str = "F32") -> bytes:
    """A safetensors file with a tensor that no model has."""
    raw = json.dumps({"extra": {"dtype": dtype, "shape": shape, "data_offsets": [0, num_bytes]}}).encode()
    return len(raw).to_bytes(8, "little") + raw + bytes(num_bytes)


def longer(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b"12345")


def not_finite(folder: Path) -> None:
    body = bytearray((folder / WEIGHTS).read_bytes())
    body[-400:-396] = b"\x00\x00\xc0\x7f"
    (folder / WEIGHTS).write_bytes(body)


def twice(folder: Path) -> None:
    shutil.copyfile(folder / WEIGHTS, folder / "again.safetensors")


ROPE = {"rope_type": "linear", "rope_theta": 1000.0}
DAMAGES: dict[str, tuple[Damage, str]] = {
    "config not JSON": (text("config.json", "{"), "config.json"),
    "config a list": (text("config.json", "[1]"), "config.json"),
    "config not UTF-8": (text("config.json", b"\xff\xfe{\x00}\x00"), "config.json"),
    "config nested deeply": (text("config.json", '{"a":' * 100_000), "config.json"),
    "config huge": (text("config.json", '{"a": "' + "x" * (17 << 20) + '"}'), "config.json"),
    "model_type a number": (config(model_type=7), "7"),
    "model_type a list": (config(model_type=["llama"]), "llama"),
    "hidden_size missing": (config(hidden_size=MISSING), "hidden_size"),
    "hidden_size a text": (config(hidden_size="64"), "hidden_size"),
    "hidden_size negative": (config(hidden_size=-64), "hidden_size"),
    "hidden_size huge": (config(hidden_size=1 << 70), "hidden_size"),
    "hidden_size another": (config(hidden_size=128), "shape"),
    "heads zero": (config(num_attention_heads=0), "num_attention_heads"),
    "heads a list": (config(num_attention_heads=[4, 4]), "num_attention_heads"),
    "kv heads no divisor": (config(num_key_value_heads=3), "config.json"),
    "kv heads a text": (config(num_key_value_heads="two"), "num_key_value_heads"),
    "head_dim a float": (config(head_dim=16.5), "head_dim"),
    "layers a bool": (config(num_hidden_layers=True), "num_hidden_layers"),
    "layers missing": (config(num_hidden_layers=MISSING), "num_hidden_layers"),
    "layers a million": (config(num_hidden_layers=1_000_000), "num_hidden_layers"),
    "context a text": (config(max_position_embeddings="long"), "max_position_embeddings"),
    "epsilon a text": (config(rms_norm_eps="1e-5"), "rms_norm_eps"),
    "epsilon negative": (config(rms_norm_eps=-1.0), "rms_norm_eps"),
    "vocabulary another": (config(vocab_size=7), "vocab_size"),
    "vocabulary a text": (config(vocab_size="many"), "vocab_size"),
    "tied a text": (config(tie_word_embeddings="no"), "tie_word_embeddings"),
    "window a dictionary": (config(sliding_window={}), "sliding_window"),
    "experts a text": (config(num_experts="8"), "num_experts"),
    "theta a text": (config(rope_parameters={"rope_theta": "big"}), "rope_theta"),
    "theta a dictionary": (config(rope_parameters=MISSING, rope_theta={}), "rope_theta"),
    "rope a list": (config(rope_parameters=[1]), "rope_parameters"),
    "rope a text": (config(rope_parameters=MISSING, rope_scaling="linear"), "rope_scaling"),
    "rope per layer type a text": (config(rope_parameters={"full_attention": "default"}), "full_attention"),
    "rope without a factor": (config(rope_parameters=ROPE), "factor"),
    "rope factor a text": (config(rope_parameters=ROPE | {"factor": "2"}), "factor"),
    "rope factor negative": (config(rope_parameters=ROPE | {"factor": -2.0}), "factor"),
    "rope factor null": (config(rope_parameters=ROPE | {"factor": None}), "factor"),
    "rope type a number": (config(rope_parameters={"rope_type": 3, "factor": 2.0}), "rope_type"),
    "rope unknown": (config(rope_parameters={"rope_type": "longrope", "factor": 2.0}), "longrope"),
    "yarn context a text": (
        config(rope_parameters={"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": "x"}),
        "original_max_position_embeddings",
    ),
    "yarn beta a list": (config(rope_parameters={"rope_type": "yarn", "factor": 2.0, "beta_fast": []}), "beta_fast"),
    "end a text": (config(eos_token_id="</s>"), "eos_token_id"),
    "ends texts": (config(eos_token_id=["</s>"]), "eos_token_id"),
    "end negative": (config(eos_token_id=-5), "eos_token_id"),
    "beginning a text": (config(bos_token_id="<s>"), "bos_token_id"),
    "padding a list": (config(pad_token_id=[1]), "pad_token_id"),
    "generation not JSON": (text("generation_config.json", "nope"), "generation_config.json"),
    "generation's end a text": (generation(eos_token_id="</s>"), "eos_token_id"),
    "generation's end no token": (generation(eos_token_id=[2, 999_999]), "eos_token_id"),
    "temperature a text": (generation(temperature="warm"), "temperature"),
    "temperature a list": (generation(temperature=[0.5]), "temperature"),
    "temperature negative": (generation(temperature=-1.0), "temperature"),
    "top_k a float": (generation(top_k=2.5), "top_k"),
    "do_sample a text": (generation(do_sample="yes"), "do_sample"),
    "tokenizer cut": (cut("tokenizer.json", 0.5), "tokenizer.json"),
    "tokenizer empty": (text("tokenizer.json", ""), "tokenizer.json"),
    "tokenizer a list": (text("tokenizer.json", "[]"), "tokenizer.json"),
    "added tokens a text": (tokenizer(added_tokens="none"), "tokenizer.json"),
    "added tokens of wrong types": (tokenizer(added_tokens=[{"id": "zero", "content": 3}]), "tokenizer.json"),
    "tokenizer model a number": (tokenizer(model=3), "tokenizer.json"),
    "vocabulary of texts": (tokenizer(model={"type": "BPE", "vocab": {"a": "b"}, "merges": []}), "tokenizer.json"),
    "pre-tokenizer of no kind": (tokenizer(pre_tokenizer={"type": "Nothing"}), "tokenizer.json"),
    "tokenizer config not JSON": (text("tokenizer_config.json", "{,}"), "tokenizer_config.json"),
    "template a number": (template(chat_template=5), "chat_template"),
    "template a dictionary": (template(chat_template={"default": "x"}), "chat_template"),
    "templates without names": (template(chat_template=[{"template": "x"}]), "chat_template"),
    "templates of numbers": (template(chat_template=[{"name": "default", "template": 1}]), "chat_template"),
    "templates texts": (template(chat_template=["x"]), "chat_template"),
    "template not UTF-8": (text("chat_template.jinja", b"\xff\xfe"), "chat_template.jinja"),
    "token a list": (template(bos_token=["<s>"]), "bos_token"),
    "token of numbers": (template(eos_token={"content": 4}), "eos_token"),
    "weights empty": (text(WEIGHTS, ""), WEIGHTS),
    "weights four bytes": (text(WEIGHTS, b"1234"), WEIGHTS),
    "weights text": (text(WEIGHTS, "version https://git-lfs.github.com/spec/v1"), WEIGHTS),
    "weights cut": (cut(WEIGHTS, 0.7), WEIGHTS),
    "weights with more": (longer, WEIGHTS),
    "header beyond the file": (length(1 << 40), WEIGHTS),
    "header of no length": (length(0), WEIGHTS),
    "header of half its length": (length(100), WEIGHTS),
    "header a list": (header(lambda values: list(values)), WEIGHTS),
    "entry a list": (header(lambda values: {name: [1] for name in values}), WEIGHTS),
    "entry without a type": (header(lambda values: {name: {"shape": [1], "data_offsets": [0, 4]} for name in values}), WEIGHTS),
    "dtype a number": (tensor(dtype=4), WEIGHTS),
    "dtype unknown": (tensor(dtype="F7"), WEIGHTS),
    "dtype not read": (text("more.safetensors", one_tensor([4], 4, "F8_E4M3")), "F8_E4M3"),
    "dtype narrower": (tensor(dtype="F8_E4M3"), WEIGHTS),
    "dtype another": (tensor(dtype="F16"), WEIGHTS),
    "shape a text": (tensor(shape="64"), WEIGHTS),
    "shape negative": (tensor(shape=[-64]), WEIGHTS),
    "shape of none": (tensor(shape=[]), WEIGHTS),
    "shape of zero": (text("more.safetensors", one_tensor([0], 0)), "more.safetensors"),
    "shape huge": (tensor(shape=[1 << 62, 1 << 62]), WEIGHTS),
    "shape another": (tensor(shape=[32, 2]), "norm"),
    "offsets a number": (tensor(data_offsets=5), WEIGHTS),
    "offsets three": (tensor(data_offsets=[0, 4, 8]), WEIGHTS),
    "offsets texts": (tensor(data_offsets=["0", "256"]), WEIGHTS),
    "offsets turned": (tensor(data_offsets=[256, 0]), WEIGHTS),
    "offsets negative": (tensor(data_offsets=[-256, 0]), WEIGHTS),
    "offsets beyond the file": (tensor(data_offsets=[1 << 33, (1 << 33) + 256]), WEIGHTS),
    "offsets overlapping": (header(overlapping), WEIGHTS),
    "a tensor missing": (header(lambda values: values.pop("model.norm.weight") and None), WEIGHTS),
    "a tensor twice": (twice, "twice"),
    "a tensor too many": (text("more.safetensors", one_tensor([1], 4)), "extra"),
    "values not finite": (not_finite, "finite"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_error_that_names_the_file(name: str, sound: Path, registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(sound, folder)
    damage, expected_text = DAMAGES[name]
    damage(folder)
    with pytest.raises((CorruptModel, UnsupportedModel), match=expected_text):
        pull(registry, str(folder))
    assert registry.models() == ()


def test_the_sound_one_is_imported(sound: Path, registry: Registry) -> None:
    version = pull(registry, str(sound))
    assert (version.manifest.importer, version.manifest.warnings) == ("checkpoint", ())


@pytest.mark.filterwarnings("default::ResourceWarning")  # huggingface_hub keeps its connection open until the process ends
def test_a_damaged_download_is_dropped(sound: Path, server: LocalServer, registry: Registry, home: Path) -> None:
    files = {path.name: path.read_bytes() for path in sound.iterdir()}
    damaged = files | {"config.json": json.dumps(json.loads(files["config.json"]) | {"eos_token_id": "</s>"}).encode()}
    add_repository(server, "org/tiny", damaged)
    with pytest.raises(CorruptModel, match="eos_token_id"):
        pull(registry, "hf://org/tiny")
    assert not any((home / "downloads").iterdir())
    add_repository(server, "org/tiny", files, commit="b" * 40)
    assert pull(registry, "hf://org/tiny").number == 1
