"""Reads the description of a model from its onnxruntime-genai folder, without running anything.

Owns the words of genai_config.json and tokenizer_config.json; no other file reads them. Knows no tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class BadModelFolder(ValueError):
    """The folder lacks or garbles something that serving needs; the message names the file."""


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """The model's own sampling settings. Where it names none, a little under neutral: small models ramble at temperature 1."""

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0


_VALID: Mapping[str, Callable[[float], bool]] = {
    "temperature": lambda value: value >= 0,
    "top_k": lambda value: value >= -1,
    "top_p": lambda value: 0 < value <= 1,
    "min_p": lambda value: 0 <= value <= 1,
    "repetition_penalty": lambda value: value > 0,
}


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Names and sizes of the decoder graph. past/present: name patterns with %d for the layer."""

    path: Path
    num_layers: int
    kv_heads: int
    head_size: int
    past_key: str
    past_value: str
    present_key: str
    present_value: str


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """eos_ids: every token that ends an answer. chat_template: Jinja source, None for base models."""

    path: Path
    architecture: str
    context_length: int
    vocab_size: int
    eos_ids: frozenset[int]
    decoder: DecoderShape
    tokenizer_path: Path
    chat_template: str | None
    special_tokens: Mapping[str, str]
    defaults: GenerationDefaults = field(default_factory=GenerationDefaults)


def read_model_folder(path: Path) -> ModelFolder:
    """Raises BadModelFolder."""
    config = _json(path / "genai_config.json", required=True)
    tokenizer_config = _json(path / "tokenizer_config.json")
    try:
        model, decoder = config["model"], config["model"]["decoder"]
        eos = model["eos_token_id"]
        return ModelFolder(
            path=path,
            architecture=str(model["type"]),
            context_length=int(model["context_length"]),
            vocab_size=int(model["vocab_size"]),
            eos_ids=frozenset(map(int, eos if isinstance(eos, list) else [eos])),
            decoder=_decoder(path, decoder),
            tokenizer_path=_existing(path / "tokenizer.json"),
            chat_template=_chat_template(path, tokenizer_config),
            special_tokens=_special_tokens(tokenizer_config),
            defaults=_defaults(config.get("search", {}), _json(path / "generation_config.json")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BadModelFolder):
            raise
        raise BadModelFolder(f"genai_config.json in {path} is not usable: {type(error).__name__} {error}") from error


def _decoder(path: Path, decoder: Mapping[str, Any]) -> DecoderShape:
    inputs, outputs = decoder.get("inputs", {}), decoder.get("outputs", {})
    return DecoderShape(
        path=_existing(path / str(decoder["filename"])),
        num_layers=int(decoder["num_hidden_layers"]),
        kv_heads=int(decoder["num_key_value_heads"]),
        head_size=int(decoder["head_size"]),
        past_key=inputs.get("past_key_names", "past_key_values.%d.key"),
        past_value=inputs.get("past_value_names", "past_key_values.%d.value"),
        present_key=outputs.get("present_key_names", "present.%d.key"),
        present_value=outputs.get("present_value_names", "present.%d.value"),
    )


def _chat_template(path: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """Newer checkpoints keep it in a file of its own; older ones in the tokenizer's configuration, sometimes as a named list."""
    if (own := path / "chat_template.jinja").is_file():
        return _text(own)
    template = tokenizer_config.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return str(template) if template else None


def _special_tokens(tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    tokens = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        value = tokenizer_config.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            tokens[name] = value
    return tokens


def _defaults(search: Mapping[str, Any], generation_config: Mapping[str, Any]) -> GenerationDefaults:
    """Settings count only if the model's configuration enables sampling; a bare `do_sample: false` is the exporter's own default.

    A default that a request could not use is left out: else every request without its own value would be refused.
    """
    named = generation_config or (search if search.get("do_sample") else {})
    known = {name: float(named[name]) for name, is_valid in _VALID.items() if _is_number(named.get(name)) and is_valid(named[name])}
    neutral = GenerationDefaults(temperature=1.0, top_p=1.0) if "temperature" in known else GenerationDefaults()
    return GenerationDefaults(
        temperature=known.get("temperature", neutral.temperature),
        top_k=int(known.get("top_k", neutral.top_k)),
        top_p=known.get("top_p", neutral.top_p),
        min_p=known.get("min_p", neutral.min_p),
        repetition_penalty=known.get("repetition_penalty", neutral.repetition_penalty),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise BadModelFolder(f"{path.name} is missing from {path.parent}")
    return path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadModelFolder(f"{path.name} in {path.parent} is not UTF-8 text: {error}") from error


def _json(path: Path, *, required: bool = False) -> dict[str, Any]:
    if not path.is_file() and not required:
        return {}
    try:
        content = json.loads(_text(_existing(path)))
    except json.JSONDecodeError as error:
        raise BadModelFolder(f"{path.name} in {path.parent} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadModelFolder(f"{path.name} in {path.parent} must hold a JSON object")
    return content
