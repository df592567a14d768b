"""What an answer must look like: its grammar, by the request or by its tools, after a thought within its budget. Knows no queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import msgspec

from runtime.protocol.capabilities import lacks_forms
from runtime.protocol.errors import Field, InvalidRequest
from runtime.protocol.request import ChatPrompt, Grammar, GrammarKind, Prompt, SamplingParams, ToolChoice, ToolMode
from runtime.text.chat_prompts import NO_THOUGHT, ChatFormats
from runtime.text.constraints.constraint import Constraint
from runtime.text.constraints.grammar import either
from runtime.text.constraints.thinking import Thinking, ThoughtTags
from runtime.text.formats.call_grammar import loosened
from runtime.text.formats.protocol import Tool
from runtime.text.tokenizer import Tokenizer

_BUDGETS = {NO_THOUGHT: 0, "minimal": 256, "low": 1024, "medium": 4096}  # of the other efforts: no limit


class Compiler(Protocol):
    """`constraints.compiler.GrammarCompiler`."""

    def compile(self, grammar: Grammar) -> Callable[[], Constraint]:
        """Makes a constraint for each row. Raises InvalidRequest, which names `grammar.field`. Thread-safe."""
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

    def form(self, prompt: Prompt, text: str, requested: SamplingParams) -> AnswerForm:
        """text: what the prompt was rendered to. Only answers to chat messages have thoughts. Raises InvalidRequest."""
        inner = self._constraint(prompt, requested)
        reasoning = self._formats.reasoning
        if not isinstance(prompt, ChatPrompt) or reasoning is None:
            if requested.thinking_budget is not None:
                raise InvalidRequest(
                    "There is no thought to limit: the model does not reason, or answers no conversation. Leave it out.",
                    field=Field.THINKING_BUDGET,
                    code="unsupported_parameter",
                )
            return AnswerForm(inner)
        budget, in_thought = requested.thinking_budget, reasoning.ends_in_thought(text)
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

    def _constraint(self, prompt: Prompt, requested: SamplingParams) -> Constraint | None:
        tools = prompt.tools if isinstance(prompt, ChatPrompt) and self._formats.tools is not None else None
        if not tools:
            return None if requested.grammar is None else self._compiled(requested.grammar, requested)
        assert isinstance(prompt, ChatPrompt)
        choice = prompt.tool_choice
        if self._compiler is None and choice.mode is ToolMode.AUTO and requested.grammar is None:
            return None  # calls are then as valid as the model makes them
        if requested.grammar is not None:
            self._compiled(requested.grammar, requested)  # so that a fault of the grammar alone is reported as such
        try:
            return self._compiled(self._calls(tools, choice, requested.grammar), requested)
        except InvalidRequest:
            if (loose := loosened(tools)) == tools:
                raise
            return self._compiled(self._calls(loose, choice, requested.grammar), requested)

    def _calls(self, tools: list[Tool], choice: ToolChoice, form: Grammar | None) -> Grammar:
        """The grammar of answers with calls. form: of answers without, where calls are not required; None: any text."""
        assert self._formats.tools is not None
        if form is None or choice.mode is ToolMode.REQUIRED:
            source = self._formats.tools.grammar(tools, choice)
        elif form.kind is GrammarKind.LARK:
            raise InvalidRequest(
                "An answer that follows a grammar cannot also call tools at will. Require a call, or leave one of both out.",
                field=form.field,
                code="unsupported_parameter",
            )
        else:
            required = msgspec.structs.replace(choice, mode=ToolMode.REQUIRED)
            source = either(self._formats.tools.grammar(tools, required), form)
        return Grammar(kind=GrammarKind.CALLS, source=source)

    def _compiled(self, grammar: Grammar, requested: SamplingParams) -> Constraint:
        if self._compiler is None:
            raise lacks_forms(Field.TOOL_CHOICE if grammar.field is Field.TOOLS else grammar.field)
        for field, is_requested in ((Field.MIN_TOKENS, requested.min_tokens > 0), (Field.IGNORE_EOS, requested.ignore_eos)):
            if is_requested:
                raise InvalidRequest(
                    f"{field.quoted} cannot be combined with {grammar.field.quoted}, which says where the answer ends. "
                    "Leave one of them out.",
                    field=field,
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
