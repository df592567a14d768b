"""Fields of OpenAI's and vLLM's APIs that mean something this server does not do: refused by name, never ignored.

A field that is in no table and no wire model has no meaning here and is accepted, as OpenAI's clients expect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from server.dialects.openai.errors import InvalidParam


@dataclass(frozen=True, slots=True)
class Unsupported:
    """field: its name. harmless: values without effect, beside null. what: what other values request.

    instead: this server's own field for the same, if it has one.
    """

    field: str
    what: str
    harmless: tuple[Any, ...] = ()
    instead: str | None = None


_GENERATION = (
    Unsupported("logit_processors", "custom logits processors", ([],)),
    Unsupported("logits_processors", "custom logits processors", ([],)),
    Unsupported("use_beam_search", "beam search", (False,)),
    Unsupported("length_penalty", "beam search", (1, 1.0)),
    Unsupported("early_stopping", "beam search", (False,)),
    Unsupported("bad_words", "forbidden words", ([],)),
    Unsupported("allowed_token_ids", "a limit to certain tokens"),
    Unsupported("truncate_prompt_tokens", "cutting the prompt"),
    Unsupported("return_tokens_as_token_ids", "token ids in place of tokens", (False,)),
    Unsupported("cache_salt", "a prefix cache of its own"),
    Unsupported("structural_tag", "a structural tag"),
    Unsupported("guided_decoding_backend", "another backend of structured output"),
    Unsupported("guided_whitespace_pattern", "whitespace of one's own"),
    Unsupported("detokenize", "answers without text", (True,)),
    Unsupported("logprob_token_ids", "log probabilities of certain tokens", ([],)),
    Unsupported("spaces_between_special_tokens", "special tokens without spaces", (True,)),
    Unsupported("repetition_detection", "repetition detection"),
    Unsupported("kv_transfer_params", "KV transfer", ({},)),
    Unsupported("vllm_xargs", "extra engine arguments", ({},)),
    Unsupported("data_parallel_rank", "a data-parallel rank"),
    Unsupported("moderation", "moderation"),
    Unsupported("grammar", "a grammar", ("",), "structured_outputs.grammar (in Lark's notation)"),
    Unsupported("ebnf", "a grammar", ("",), "structured_outputs.grammar (in Lark's notation)"),
    Unsupported("regex", "an answer of a pattern", ("",), "structured_outputs.regex"),
    Unsupported("json_schema", "an answer of a schema", instead="response_format"),
    Unsupported("format", "an answer's form", ("",), "response_format"),
    Unsupported("n_predict", "a limit of tokens", instead="max_tokens"),
    Unsupported("num_predict", "a limit of tokens", instead="max_tokens"),
    Unsupported("n_probs", "log probabilities", (0,), "logprobs"),
    Unsupported("repeat_penalty", "a penalty on repetition", (1, 1.0), "repetition_penalty"),
    Unsupported("typical", "typical sampling", (1, 1.0), "typical_p"),
    Unsupported("stop_sequences", "texts that end the answer", ([],), "stop"),
    Unsupported("random_seed", "a seed", instead="seed"),
    Unsupported("options", "options of another API", ({},), "the fields of this one, such as temperature"),
    Unsupported("tfs", "tail-free sampling", (1, 1.0)),
    Unsupported("tfs_z", "tail-free sampling", (1, 1.0)),
    Unsupported("id_slot", "a slot of one's own", (-1,)),
    Unsupported("lora", "adapters with scales", ([],), "the name of an adapter as the model"),
    Unsupported("mirostat", "Mirostat sampling", (0,)),
    Unsupported("xtc_probability", "XTC sampling", (0, 0.0)),
    Unsupported("xtc_threshold", "XTC sampling"),
    Unsupported("dry_multiplier", "DRY sampling", (0, 0.0)),
    Unsupported("num_ctx", "a context length per request"),
    Unsupported("modalities", "answers other than text", (["text"],)),
    Unsupported("store", "stored completions", (False,)),
    Unsupported("web_search_options", "web search"),
    Unsupported("verbosity", "a verbosity", ("medium",)),
    Unsupported("chat_template", "another chat template", ("",)),
    Unsupported("documents", "documents in the template", ([],)),
    Unsupported("mm_processor_kwargs", "images, audio or video", ({},)),
)
CHAT = (
    *_GENERATION,
    Unsupported("audio", "spoken answers"),
    Unsupported("echo", "an echo of the prompt", (False,)),
    Unsupported("add_special_tokens", "special tokens beside the chat template's", (False,)),
    Unsupported("best_of", "a choice among several answers", (1,)),
    Unsupported("reasoning", "an effort of reasoning", instead="reasoning_effort"),
    Unsupported("thinking", "a limited thought", instead="thinking_token_budget"),
    Unsupported("think", "a thought, or none", instead="reasoning_effort"),
    Unsupported("enable_thinking", "a thought, or none", instead="reasoning_effort, or chat_template_kwargs.enable_thinking"),
    Unsupported("reasoning_budget", "a limited thought", (-1,), "thinking_token_budget"),
    Unsupported("max_thinking_tokens", "a limited thought", instead="thinking_token_budget"),
    Unsupported("reasoning_format", "a format of the reasoning", ("auto",), "include_reasoning"),
    Unsupported("media_io_kwargs", "images, audio or video", ({},)),
)
COMPLETION = (
    *_GENERATION,
    Unsupported("suffix", "text after the completion", ("",)),
    Unsupported("prompt_embeds", "prompts as embeddings"),
    Unsupported("max_completion_tokens", "a limit of tokens", instead="max_tokens"),
    Unsupported("top_logprobs", "alternatives of each token", (0,), "logprobs"),
    Unsupported("messages", "a conversation", ([],), "/v1/chat/completions"),
    Unsupported("tools", "tools", ([],), "/v1/chat/completions"),
    Unsupported("tool_choice", "tools", ("none",), "/v1/chat/completions"),
    Unsupported("parallel_tool_calls", "tools", (False, True), "/v1/chat/completions"),
    Unsupported("functions", "tools", ([],), "/v1/chat/completions"),
    Unsupported("function_call", "tools", ("none",), "/v1/chat/completions"),
    Unsupported("reasoning_effort", "an effort of reasoning", instead="/v1/chat/completions"),
    Unsupported("thinking", "a limited thought", instead="thinking_token_budget"),
    Unsupported("chat_template_kwargs", "a chat template", ({},)),
    Unsupported("continue_final_message", "a chat template", (False,)),
)
RESPONSE_FORMAT = (Unsupported("schema", "a schema outside json_schema.schema"),)
STRUCTURED_OUTPUTS = (
    Unsupported("structural_tag", "a structural tag"),
    Unsupported("whitespace_pattern", "whitespace of one's own"),
    Unsupported("disable_any_whitespace", "JSON without whitespace", (False,)),
    Unsupported("disable_additional_properties", "a change of the schema", (False,)),
)
STREAM_OPTIONS = (Unsupported("include_obfuscation", "obfuscated chunks", (False,)),)
MESSAGE = (Unsupported("audio", "spoken messages"),)


def find_unsupported(fields: Mapping[str, Any], table: Iterable[Unsupported]) -> Unsupported | None:
    """The first row whose field is set to a value with an effect."""
    return next((row for row in table if _is_requested(fields.get(row.field), row.harmless)), None)


def explain(row: Unsupported, name: str) -> str:
    """name: the field as the request has it, e.g. `stream_options.include_obfuscation`."""
    harmless = [msgspec.json.encode(value).decode() for value in row.harmless]
    advice = f"leave it out, or send {' or '.join([*harmless, 'null'])}"
    if row.instead is not None:
        return f"{name!r} requests {row.what}, for which this server has {row.instead}: use that, and {advice} here."
    return f"{name!r} requests {row.what}, which this server does not support: {advice}."


def refuse_unsupported(fields: Mapping[str, Any], table: Iterable[Unsupported], *, within: str = "") -> None:
    """Raises InvalidParam. within: the dotted path of the object that has the fields."""
    row = find_unsupported(fields, table)
    if row is not None:
        name = f"{within}.{row.field}" if within else row.field
        raise InvalidParam(explain(row, name), param=name, code="unsupported_parameter")


def _is_requested(value: Any, harmless: tuple[Any, ...]) -> bool:
    return value is not None and not any(type(value) is type(each) and value == each for each in harmless)
