"""What an answer must look like: its grammar, by the request or by its tools, after a thought within its budget. Knows no queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from runtime.batching.chat_prompts import NO_THOUGHT, ChatFormats
from runtime.constraints.constraint import Constraint
from runtime.constraints.thinking import Thinking, ThoughtTags
from runtime.errors import InvalidRequest
from runtime.request import ChatPrompt, Grammar, GrammarKind, Prompt, SamplingParams, ToolMode
from runtime.tokenizer import Tokenizer

_BUDGETS = {NO_THOUGHT: 0, "minimal": 256, "low": 1024, "medium": 4096}  # of the other efforts: no limit


class Compiler(Protocol):
    """`constraints.compiler.GrammarCompiler`."""

    def compile(self, grammar: Grammar) -> Callable[[], Constraint]:
        """Makes a constraint for each row. Raises InvalidRequest, which names `grammar.param`. Thread-safe."""
        ...


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """constraint: of the whole answer; None: anything goes. thought: the part of it that counts the thought's tokens."""

    constraint: Constraint | None = None
    thought: Thinking | None = None
    in_thought: bool = False


class AnswerForms:
    """compiler None: the engine cannot hold a row to a grammar, and refuses what needs one."""

    def __init__(
        self, tokenizer: Tokenizer, formats: ChatFormats, compiler: Compiler | None, *, vocab_size: int, eos_ids: frozenset[int]
    ) -> None:
        self._tokenizer = tokenizer
        self._formats = formats
        self._compiler = compiler
        self._vocab_size = vocab_size
        self._eos_ids = eos_ids

    def form(self, prompt: Prompt, text: str, asked: SamplingParams) -> AnswerForm:
        """text: what the prompt was rendered to. Only answers to chat messages have thoughts. Raises InvalidRequest."""
        grammar = self._grammar(prompt, asked)
        inner = None if grammar is None else self._compiled(grammar, asked)
        reasoning = self._formats.reasoning
        if not isinstance(prompt, ChatPrompt) or reasoning is None:
            if asked.thinking_budget is not None:
                raise InvalidRequest(
                    "There is no thought to limit: the model does not reason, or answers no chat messages. Leave it out.",
                    param="thinking_token_budget",
                    code="unsupported_parameter",
                )
            return AnswerForm(inner)
        budget, in_thought = asked.thinking_budget, reasoning.ends_in_thought(text)
        if budget is None:
            budget = _BUDGETS.get(prompt.reasoning_effort or "")
        thought = Thinking(self._tags, inner, budget=budget, in_thought=in_thought)
        return AnswerForm(thought, thought, in_thought)

    def visible_ids(self, prompt: Prompt) -> frozenset[int]:
        """Special tokens that are part of the answer's text: calls and thoughts are written with them."""
        if not isinstance(prompt, ChatPrompt):
            return frozenset()
        tools, reasoning = self._formats.tools, self._formats.reasoning
        names: list[str] = []
        if tools is not None and prompt.tools:
            names += tools.special_tokens
        if reasoning is not None:
            names += (reasoning.open, reasoning.close)
        return frozenset(token for name in names if (token := self._token(name)) is not None)

    def _grammar(self, prompt: Prompt, asked: SamplingParams) -> Grammar | None:
        if not isinstance(prompt, ChatPrompt) or not prompt.tools or self._formats.tools is None:
            return asked.grammar
        choice = prompt.tool_choice
        if choice.mode is ToolMode.AUTO:
            if asked.grammar is not None:
                raise InvalidRequest(
                    "An answer of a given form cannot also call tools at will. Require a call, or leave one of both out.",
                    param=asked.grammar.param,
                    code="unsupported_parameter",
                )
            if self._compiler is None:
                return None  # calls are then as valid as the model makes them
        source = self._formats.tools.grammar(prompt.tools, choice)
        return Grammar(kind=GrammarKind.LARK, source=source, param="tools")

    def _compiled(self, grammar: Grammar, asked: SamplingParams) -> Constraint:
        if self._compiler is None:
            param = "tool_choice" if grammar.param == "tools" else grammar.param
            raise InvalidRequest(
                f"The engine of this model cannot follow {param}. Leave it out, or serve the model with another engine.",
                param=param,
                code="unsupported_parameter",
            )
        for field, is_asked in (("min_tokens", asked.min_tokens > 0), ("ignore_eos", asked.ignore_eos)):
            if is_asked:
                raise InvalidRequest(
                    f"{field} cannot be combined with {grammar.param}, which says where the answer ends. Leave one of them out.",
                    param=field,
                )
        return self._compiler.compile(grammar)()

    @cached_property
    def _tags(self) -> ThoughtTags:
        reasoning = self._formats.reasoning
        assert reasoning is not None
        read = self._tokenizer.token_bytes(skip_special_tokens=False)
        close = reasoning.close.encode()
        return ThoughtTags(
            open=reasoning.open.encode(),
            close=close,
            open_token=self._token(reasoning.open),
            closing=tuple(self._tokenizer.encode(f"\n{reasoning.close}\n\n", add_special_tokens=False)),
            spilling=() if self._token(reasoning.close) is not None else self._spilling(close),
            token_bytes=read,
            vocab_size=self._vocab_size,
            eos_ids=self._eos_ids,
        )

    def _spilling(self, close: bytes) -> tuple[int, ...]:
        """Tokens in which something else than white space follows a character that may end the tag."""
        read, last = self._tokenizer.token_bytes(skip_special_tokens=False), close[-1:]
        return tuple(token for token in range(self._vocab_size) if read(token).partition(last)[2].strip())

    def _token(self, text: str) -> int | None:
        """The one token that this text is, if it is one."""
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        return ids[0] if len(ids) == 1 else None
