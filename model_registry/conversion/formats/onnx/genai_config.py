"""The `genai_config.json` of a decoder: reading one, writing the one that a browser export lacks, refusing options that reach out.

The format is onnxruntime-genai's. Only plain decoders are described here: tokens in, logits out, one KV cache. onnxruntime-genai
loads the shared library that `custom_ops_library` names, writes a profile to the path in `enable_profiling`, and hands every other
text on to ONNX Runtime and to providers, some of whose options are paths of files and of libraries; so options may be numbers
and switches only. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from model_registry.conversion.formats.onnx.graph import GraphFacts
from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.records import GraphKind

_PAST_KEY, _PAST_VALUE = "past_key_values.%d.key", "past_key_values.%d.value"
_PRESENT_KEY, _PRESENT_VALUE = "present.%d.key", "present.%d.value"
_PLAIN_INPUTS = frozenset({"input_ids", "attention_mask", "position_ids"})
_KV_DTYPES = ("float32", "float16")
_PROVIDERS = {"dml": "directml", "nvtensorrtrtx": "trt-rtx"}  # genai's names of those that have another one here
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
_CARRIERS = frozenset({"session_options", "run_options"})
_REFUSED = frozenset({"custom_ops_library", "enable_profiling"})
_WORDS = frozenset({"log_id", "graph_optimization_level"})  # options of a session whose text is no switch
_SWITCH = re.compile(r"\d{1,9}|true|false|enable|disable|on|off", re.IGNORECASE | re.ASCII)
_NO_PATH = re.compile(r"[^/\\\0]*")


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """What the importer needs of a `genai_config.json`. filename: the graph's, within the folder.

    tokens, logits: the graph's input and output. past_key, past_value: names of the KV inputs, with %d for the layer.
    """

    architecture: str
    context_length: int
    filename: str
    provider_family: str
    tokens: str
    logits: str
    past_key: str
    past_value: str


def read_config(config: Any) -> DecoderConfig:
    """Raises CorruptModel (not of the format), UnsupportedModel (more than a plain decoder)."""
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict):
        raise CorruptModel("genai_config.json has no `model` section, so it is damaged. Fetch the model again.")
    architecture = str(model.get("type", "unknown"))
    extra = [part for part in ("vision", "speech", "embedding", "encoder") if part in model]
    decoder = _section(model, "decoder")
    if extra or "pipeline" in decoder:
        parts = ", ".join(extra) or "a pipeline of graphs"
        raise UnsupportedModel(
            f"The model is of type {architecture!r} with {parts}; slmops serves decoders in one graph, text only. "
            "Choose a text-only build of the model."
        )
    filename = decoder.get("filename")
    context = model.get("context_length")
    if not isinstance(filename, str) or not filename or not isinstance(context, int) or context < 1:
        raise CorruptModel("genai_config.json lacks model.decoder.filename or model.context_length. Fetch the model again.")
    inputs, outputs = _section(decoder, "inputs"), _section(decoder, "outputs")
    return DecoderConfig(
        architecture,
        context,
        filename,
        _provider_family(decoder),
        tokens=str(inputs.get("input_ids", "input_ids")),
        logits=str(outputs.get("logits", "logits")),
        past_key=str(inputs.get("past_key_names", _PAST_KEY)),
        past_value=str(inputs.get("past_value_names", _PAST_VALUE)),
    )


def graph_kind(graph: GraphFacts, decoder: DecoderConfig) -> GraphKind:
    """GQA only when batching needs nothing else of the graph: no other state than a KV cache, of one shape, in floating point."""
    if "PagedAttention" in graph.operators:
        return GraphKind.PAGED
    past = {
        pattern.replace("%d", str(layer))
        for layer in range(len(graph.inputs))
        for pattern in (decoder.past_key, decoder.past_value)
    }
    cache = [port for name, port in graph.inputs.items() if name in past]
    beside = set(graph.inputs) - past - _PLAIN_INPUTS
    alike = len({(port.dtype, port.shape[1:2], port.shape[3:]) for port in cache}) == 1
    batches = "GroupQueryAttention" in graph.operators and alike and not beside and cache[0].dtype in _KV_DTYPES
    return GraphKind.GQA if batches else GraphKind.OTHER


def write_config(config: Mapping[str, Any], generation: Mapping[str, Any], graph: GraphFacts, filename: str) -> dict[str, Any]:
    """Writes genai_config.json from the model's `config.json`, `generation_config.json` (may be empty) and graph.

    Raises UnsupportedModel.
    """
    layers, kv_heads, head_size = _cache_shape(config, graph)
    heads = _number(config, "num_attention_heads")
    context = _number(config, "max_position_embeddings")
    eos = generation.get("eos_token_id", config.get("eos_token_id"))
    names = [name for name in ("input_ids", "attention_mask", "position_ids") if name in graph.inputs]
    return {
        "model": {
            "type": str(config.get("model_type", "unknown")),
            "bos_token_id": config.get("bos_token_id"),
            "eos_token_id": eos,
            "pad_token_id": generation.get("pad_token_id", config.get("pad_token_id")),
            "vocab_size": _number(config, "vocab_size"),
            "context_length": context,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": filename,
                "head_size": head_size,
                "hidden_size": _number(config, "hidden_size"),
                "num_attention_heads": heads,
                "num_hidden_layers": layers,
                "num_key_value_heads": kv_heads,
                "inputs": {name: name for name in names} | {"past_key_names": _PAST_KEY, "past_value_names": _PAST_VALUE},
                "outputs": {
                    "logits": "logits",
                    "present_key_names": _PRESENT_KEY,
                    "present_value_names": _PRESENT_VALUE,
                },
            },
        },
        "search": {"max_length": context, "past_present_share_buffer": True}
        | {name: generation[name] for name in _SAMPLING if name in generation},
    }


def check_decoder(graph: GraphFacts, decoder: DecoderConfig) -> None:
    """Raises UnsupportedModel unless the graph goes from tokens to logits."""
    if decoder.tokens not in graph.inputs or decoder.logits not in graph.outputs:
        raise UnsupportedModel(
            f"This {decoder.architecture} graph does not go from {decoder.tokens} to {decoder.logits}: it is one part of a larger "
            "model. Choose a text-only decoder."
        )


def check_batching(kind: GraphKind, architecture: str) -> None:
    """Checks a graph without genai's configuration: the one that we write fits only our own engine. Raises UnsupportedModel."""
    if kind is not GraphKind.GQA:
        raise UnsupportedModel(
            f"This {architecture} graph cannot batch: its attention must be GroupQueryAttention, over a KV cache of one shape and "
            "nothing else. Choose a build with a genai_config.json, or a GGUF file of the same model."
        )


def _cache_shape(config: Mapping[str, Any], graph: GraphFacts) -> tuple[int, int, int]:
    """Layers, KV heads, head size: from the cache inputs [batch, heads, length, size], else from the config."""
    layers = sum(1 for name in graph.inputs if name.startswith("past_key_values.") and name.endswith(".key"))
    first = graph.inputs.get(_PAST_KEY % 0)
    if first is None or len(first.shape) != 4 or _PRESENT_KEY % 0 not in graph.outputs:
        raise UnsupportedModel("The graph has no KV cache inputs named past_key_values.0.key. Choose a decoder with a KV cache.")
    numbers = {name: _number(config, name) for name in ("num_key_value_heads", "head_dim") if config.get(name)}
    kv_heads = first.shape[1] or numbers.get("num_key_value_heads") or _number(config, "num_attention_heads")
    head_size = (
        first.shape[3] or numbers.get("head_dim") or _number(config, "hidden_size") // _number(config, "num_attention_heads")
    )
    return layers, kv_heads, head_size


def _number(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
        raise UnsupportedModel(f"config.json lacks {key}, which a decoder needs. Choose a text-only decoder.")
    return value


def _section(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _provider_family(decoder: Mapping[str, Any]) -> str:
    """It becomes part of a folder's name. Raises CorruptModel for what can be no provider's."""
    options = _section(decoder, "session_options").get("provider_options") or []
    if not isinstance(options, list):
        raise CorruptModel("genai_config.json has provider_options that are no list. Fetch the model again.")
    names = [str(name).lower() for option in options if isinstance(option, dict) for name in option]
    if names and not _PROVIDER.fullmatch(names[0]):
        raise CorruptModel(f"genai_config.json names the execution provider {names[0][:100]!r}, which there is not.")
    return _PROVIDERS.get(names[0], names[0]) if names else "cpu"


def check_options(config: Any) -> None:
    """Checks all options of a `genai_config.json`. Raises UnsupportedModel with the option's name."""
    for options in _carried(config):
        for name, value in options.items():
            if name == "provider_options":
                _check_providers(value)
            elif name in _REFUSED or (isinstance(value, str) and name not in _WORDS and not _SWITCH.fullmatch(value)):
                raise _reaching(name, value)


def _carried(config: Any) -> Iterator[dict[str, Any]]:
    """Every section of options, wherever it stands."""
    pending = [config]
    while pending:
        section = pending.pop()
        if isinstance(section, list):
            pending.extend(section)
        elif isinstance(section, dict):
            for name, value in section.items():
                if name in _CARRIERS and isinstance(value, dict):
                    yield value
                pending.append(value)


def _check_providers(listed: Any) -> None:
    """Their values may be bare names, which are looked for among the machine's own libraries, but no paths."""
    for provider in listed if isinstance(listed, list) else ():
        for options in provider.values() if isinstance(provider, dict) else ():
            for name, value in options.items() if isinstance(options, dict) else ():
                if isinstance(value, str) and not _NO_PATH.fullmatch(value):
                    raise _reaching(name, value)


def _reaching(name: str, value: Any) -> UnsupportedModel:
    return UnsupportedModel(
        f"genai_config.json has the option {name[:100]!r} with {str(value)[:200]!r}, which may run code or use files that are not "
        "the model's. Options of a model may be numbers and switches only. Choose another build of the model, or remove the option."
    )
