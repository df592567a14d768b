"""A request to a model: a prompt, and how the answer is chosen. Frozen; knows no process and no wire format."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from runtime.protocol.errors import Field


class GrammarKind(StrEnum):
    """What `Grammar.source` is: a JSON Schema; a regular expression; a JSON list of texts; a Lark grammar (llguidance's) of a
    client's; our own Lark grammar, of answers with tool calls."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"
    LARK = "lark"
    CALLS = "calls"


class Grammar(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer must look like, from its first character to its last."""

    kind: GrammarKind
    source: str

    @property
    def field(self) -> Field:
        """The part of the request that it comes from."""
        return Field.TOOLS if self.kind is GrammarKind.CALLS else Field.FORM


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the next token is chosen. None means: the model's own default (generation config), else the neutral value.

    temperature: 0 is exact greedy. top_k: 0 or -1 is off. top_p in (0, 1]. min_p in [0, 1]. typical_p in (0, 1].
    repetition_penalty > 0 over prompt and output (CTRL, Keskar et al. 2019); presence, frequency in [-2, 2] over the output.
    logit_bias: token id -> bias in [-100, 100]. seed: 64-bit. stop: texts, up to 16. max_tokens: None means up to the context;
    0 computes the prompt only, for its log probabilities.
    logprobs, prompt_logprobs: of how many alternatives beside the token itself, 0 to 20; None: no log probabilities. They are the
    model's own, before anything below changes them (as vLLM's `raw_logprobs`).
    prediction: a text that the answer is expected to repeat in large parts; it changes the speed only.
    thinking_budget: tokens of a thought, after which it is closed; None: no limit.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: Grammar | None = None
    prediction: str | None = None
    thinking_budget: int | None = None


class ToolMode(StrEnum):
    """AUTO: the model may call tools. REQUIRED: it must. (With none to call, a request has no tools.)"""

    AUTO = "auto"
    REQUIRED = "required"


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """names: the only tools that may be called; None: all. parallel: more than one call in an answer."""

    mode: ToolMode = ToolMode.AUTO
    names: tuple[str, ...] | None = None
    parallel: bool = True


class ChatPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="chat"):
    """Messages as chat templates take them: dicts with `role`, `content`, and where they apply `tool_calls`, `tool_call_id`,
    `name`, `reasoning_content`. The arguments of tool_calls are objects, not their JSON text.

    tools: as OpenAI's, `{"type": "function", "function": {"name", "description", "parameters", "strict"}}`; None: none.
    reasoning_effort: none, minimal, low, medium, high or xhigh; refused by models that do not reason, but for none.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    tool_choice: ToolChoice = ToolChoice()
    reasoning_effort: str | None = None
    template_kwargs: dict[str, Any] = {}
    add_generation_prompt: bool = True
    continue_final_message: bool = False


class TextPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    text: str
    add_special_tokens: bool = True


class TokensPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="tokens"):
    token_ids: list[int]


Prompt = ChatPrompt | TextPrompt | TokensPrompt
