"""The JSON files beside a graph that onnxruntime-genai and slmops' engine read. Pure: facts in, dictionaries out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_registry.conversion.decoder.architecture import Architecture
from model_registry.conversion.formats.gguf.metadata import Metadata
from model_registry.conversion.formats.gguf.tokenizer import KEY, TokenType, Vocabulary

# Control tokens that end a turn in one chat format or another; converters often leave them out of the metadata.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>")
NO_END = "The model names no token that ends an answer, so every answer has the most tokens that it may have."
SAMPLING_KEYS = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}


def end_ids(metadata: Metadata, vocabulary: Vocabulary) -> list[int]:
    """Every id that ends an answer, the file's eos first."""
    named = [metadata.token_id(f"{KEY}.{role}_token_id", len(vocabulary.tokens)) for role in ("eos", "eot", "eom")]
    usual = [index for index in vocabulary.of_type(TokenType.CONTROL) if vocabulary.tokens[index] in TURN_ENDS]
    return list(dict.fromkeys(index for index in [*named, *usual] if index is not None))


def metadata_warnings(metadata: Metadata, architecture: Architecture, vocabulary: Vocabulary, num_rows: int) -> tuple[str, ...]:
    """What the file says that does not fit, or leaves out, and only limits the model. num_rows: of the embedding."""
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
    return (*warnings, *(() if end_ids(metadata, vocabulary) else (NO_END,)))


def genai_config(metadata: Metadata, architecture: Architecture, vocabulary: Vocabulary, vocab_size: int) -> dict[str, Any]:
    """`genai_config.json`. vocab_size: rows of the head, which may exceed the tokens."""
    ends = end_ids(metadata, vocabulary)
    model = model_config(architecture, vocab_size, bos=vocabulary.bos, ends=ends, padding=vocabulary.padding)
    return {"model": model, "search": search_config(architecture, _wishes(metadata))}


def model_config(
    architecture: Architecture, vocab_size: int, *, bos: int | None, ends: list[int], padding: int | None
) -> dict[str, Any]:
    """Its part `model`. ends: ids that end an answer."""
    model: dict[str, Any] = {
        "type": architecture.family.genai_type or architecture.name,
        "context_length": architecture.context_length,
        "vocab_size": vocab_size,
        "decoder": _decoder(architecture),
    }
    if bos is not None:
        model["bos_token_id"] = bos
    model["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    if padding is not None or ends:
        model["pad_token_id"] = ends[0] if padding is None else padding
    return model


def _decoder(architecture: Architecture) -> dict[str, Any]:
    return {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": "model.onnx",
        "head_size": architecture.head_size,
        "hidden_size": architecture.hidden_size,
        "num_attention_heads": architecture.num_heads,
        "num_hidden_layers": architecture.num_layers,
        "num_key_value_heads": architecture.num_kv_heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }


def _wishes(metadata: Metadata) -> dict[str, float | int]:
    """Sampling values only where the file names them, so that a reader can tell the model's wish from a filler."""
    wishes: dict[str, float | int] = {}
    for key, name in SAMPLING_KEYS.items():
        full = f"general.sampling.{key}"
        if full in metadata.values:
            wishes[name] = metadata.integer(full) if name == "top_k" else metadata.number(full, above=-1e-9, at_most=1e3)
    return wishes


def search_config(architecture: Architecture, wishes: Mapping[str, float | int]) -> dict[str, Any]:
    """Its part `search`. wishes: how the model is to be sampled, as far as its source says."""
    return {
        "do_sample": bool(wishes) and wishes.get("temperature", 1.0) > 0,
        "max_length": architecture.context_length,
        "num_beams": 1,
        "past_present_share_buffer": True,
        **wishes,
    }


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
