"""The `genai_config.json` beside the decoder that we write, which onnxruntime-genai and slmops' engine read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_registry.conversion.decoder.architecture import Architecture
from model_registry.conversion.source import TextFacts

NO_END = "The model names no token that ends an answer, so every answer has the most tokens that it may have."


def genai_config(architecture: Architecture, facts: TextFacts, vocab_size: int) -> dict[str, Any]:
    """The whole file. vocab_size: rows of the head, which may exceed the tokens."""
    return {"model": _model(architecture, facts, vocab_size), "search": _search(architecture, facts.sampling)}


def _model(architecture: Architecture, facts: TextFacts, vocab_size: int) -> dict[str, Any]:
    ends = list(facts.ends)
    model: dict[str, Any] = {
        "type": architecture.family.genai_type or architecture.name,
        "context_length": architecture.context_length,
        "vocab_size": vocab_size,
        "decoder": _decoder(architecture),
    }
    if facts.bos is not None:
        model["bos_token_id"] = facts.bos
    model["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    if facts.padding is not None or ends:
        model["pad_token_id"] = ends[0] if facts.padding is None else facts.padding
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


def _search(architecture: Architecture, sampling: Mapping[str, float]) -> dict[str, Any]:
    return {
        "do_sample": bool(sampling) and sampling.get("temperature", 1.0) > 0,
        "max_length": architecture.context_length,
        "num_beams": 1,
        "past_present_share_buffer": True,
        **sampling,
    }
