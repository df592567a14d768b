"""What a GGUF file says beside its weights: tokenizer files, the tokens that end an answer, sampling, licence, warnings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model_registry.conversion.decoder.architecture import Architecture
from model_registry.conversion.formats.gguf.metadata import Metadata
from model_registry.conversion.formats.gguf.tokenizer import KEY, TokenType, Vocabulary, build_tokenizer
from model_registry.conversion.source import TextFacts

# Control tokens that end a turn in one chat format or another; converters often leave them out of the metadata.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>")
SAMPLING_KEYS = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
_LICENCES = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "gemma": "Gemma",
}


def write_texts(metadata: Metadata, architecture: Architecture, vocabulary: Vocabulary, folder: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json`. Raises CorruptModel, UnsupportedModel."""
    # By Python: what `save` raises on a full disk is a bare Exception.
    (folder / "tokenizer.json").write_text(build_tokenizer(metadata, vocabulary).to_str(pretty=True), encoding="utf-8")
    config = json.dumps(tokenizer_config(metadata, architecture, vocabulary), indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")


def text_facts(metadata: Metadata, architecture: Architecture, vocabulary: Vocabulary, num_rows: int) -> TextFacts:
    """num_rows: of the embedding."""
    return TextFacts(
        bos=vocabulary.bos,
        ends=tuple(end_ids(metadata, vocabulary)),
        padding=vocabulary.padding,
        sampling=_sampling(metadata),
        licence=_licence(metadata),
        warnings=metadata_warnings(metadata, architecture, vocabulary, num_rows),
    )


def end_ids(metadata: Metadata, vocabulary: Vocabulary) -> list[int]:
    """Every id that ends an answer, the file's eos first."""
    named = [metadata.token_id(f"{KEY}.{role}_token_id", len(vocabulary.tokens)) for role in ("eos", "eot", "eom")]
    usual = [index for index in vocabulary.of_type(TokenType.CONTROL) if vocabulary.tokens[index] in TURN_ENDS]
    return list(dict.fromkeys(index for index in [*named, *usual] if index is not None))


def metadata_warnings(metadata: Metadata, architecture: Architecture, vocabulary: Vocabulary, num_rows: int) -> tuple[str, ...]:
    """Warnings about metadata that is missing or contradictory and only limits the model. num_rows: of the embedding."""
    warnings = []
    vocab_size = metadata.integer(f"{architecture.name}.vocab_size", num_rows)
    if vocab_size != num_rows:
        warnings.append(
            f"The GGUF file has {architecture.name}.vocab_size {vocab_size}, but its embedding has {num_rows} rows, which are "
            "used. The file was converted wrongly, or from another model's settings."
        )
    if vocabulary.kind == "gpt2" and metadata.text(f"{KEY}.pre") is None:
        warnings.append(
            f"The GGUF file does not name its pre-tokenizer ({KEY}.pre), so texts are cut as by default: they may become other "
            "tokens than those that the model was trained on. Choose a newer conversion of the model."
        )
    return tuple(warnings)


def tokenizer_config(metadata: Metadata, architecture: Architecture, vocabulary: Vocabulary) -> dict[str, Any]:
    """`tokenizer_config.json`, with the chat template where the file has one."""
    roles = {
        "bos_token": vocabulary.bos,
        "eos_token": vocabulary.eos,
        "unk_token": vocabulary.unknown,
        "pad_token": vocabulary.padding,
    }
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast" if vocabulary.kind == "gpt2" else "LlamaTokenizer",
        "add_bos_token": vocabulary.adds_bos,
        "add_eos_token": vocabulary.adds_eos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": architecture.context_length,
    }
    config |= {role: vocabulary.tokens[index] for role, index in roles.items() if index is not None}
    template = metadata.text("tokenizer.chat_template")
    if template:
        config["chat_template"] = template
    return config


def _sampling(metadata: Metadata) -> dict[str, float | int]:
    """Sampling values only where the file names them, so that a reader can tell the model's preference from a filler."""
    found: dict[str, float | int] = {}
    for key, name in SAMPLING_KEYS.items():
        full = f"general.sampling.{key}"
        if full in metadata.values:
            found[name] = metadata.integer(full) if name == "top_k" else metadata.number(full, above=-1e-9, at_most=1e3)
    return found


def _licence(metadata: Metadata) -> str | None:
    """SPDX or the licence's own name where we know it; a LicenseRef for the hub's other names."""
    name = metadata.text("general.license")
    if not name:
        return None
    return _LICENCES.get(name.lower(), "LicenseRef-" + "".join(c if c.isalnum() or c in ".-" else "-" for c in name[:80]))
