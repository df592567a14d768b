"""Messages to the text a model was trained on, by its own Jinja template, in a sandbox. Knows no tokens.

The sandbox keeps a template from reaching anything; what it may take of time and memory, `preparation_child` limits from outside.

Conventions follow Hugging Face's `apply_chat_template`: trimmed blocks, loop controls, `raise_exception`, `strftime_now`, `tojson`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runtime.protocol.errors import Field, InvalidRequest
from runtime.protocol.request import ChatPrompt

MAX_RENDERED_CHARS = 32 << 20
MAX_RANGE_STEPS = 10_000_000  # of all ranges of one rendering together: nested loops multiply
_END = "\ue000end of the final message\ue000"  # private use characters: no message and no template has them


MAX_REASON_CHARS = 500  # of what a template raises, which it may have made of whole messages


class _Sandbox(ImmutableSandboxedEnvironment):
    """Products and powers, whose results can be far larger than what they are made of, are looked at first."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("powers are not available to chat templates")
        for sequence, times in ((left, right), (right, left)):
            repeats = isinstance(sequence, str | bytes | list | tuple) and isinstance(times, int)
            if repeats and len(sequence) * times > MAX_RENDERED_CHARS:
                raise SecurityError(f"a product of more than {MAX_RENDERED_CHARS} elements")
        return super().call_binop(context, operator, left, right)


class _Ranges:
    """`range` for one rendering. Raises OverflowError once all ranges together are too long."""

    def __init__(self) -> None:
        self._left = MAX_RANGE_STEPS

    def __call__(self, *args: int) -> range:
        steps = range(*args)
        self._left -= len(steps)
        if self._left < 0:
            raise OverflowError(f"its ranges have more than {MAX_RANGE_STEPS} steps together")
        return steps


class ChatTemplate:
    """A compiled template. special_tokens: `bos_token`, `eos_token`... as the template may name them."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Raises ValueError when the template does not compile."""
        self._special = dict(special_tokens)
        self._environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        self._environment.filters["tojson"] = _tojson
        self._environment.globals["raise_exception"] = _raise_exception
        self._environment.globals["strftime_now"] = lambda fmt: datetime.now().astimezone().strftime(fmt)
        try:
            self._template = self._environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            fault = (error.message or "").rstrip(".")
            raise ValueError(f"the chat template does not compile: line {error.lineno}: {fault}") from error
        except Exception as error:  # constants are computed while compiling, and may raise anything
            raise ValueError(f"the chat template does not compile: {_shown(error)}") from error

    def render(self, prompt: ChatPrompt) -> str:
        """Raises InvalidRequest when the template refuses the messages or reaches for what the sandbox forbids."""
        if not prompt.continue_final_message:
            return self._run(prompt, prompt.messages, add_generation_prompt=prompt.add_generation_prompt)
        final = prompt.messages[-1].get("content") if prompt.messages else None
        if isinstance(final, str) and final.strip():
            marked = [*prompt.messages[:-1], {**prompt.messages[-1], "content": f"{final}{_END} "}]
            before, end, after = self._run(prompt, marked, add_generation_prompt=False).rpartition(_END)
            if end:
                return before if after.startswith(" ") else before.rstrip()  # as the template would have trimmed it
        raise InvalidRequest(
            f"{Field.CONTINUATION.quoted} needs a last message with text content that the chat template keeps.",
            field=Field.CONTINUATION,
        )

    def _run(self, prompt: ChatPrompt, messages: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
        names = {"range": _Ranges(), **self._special, **prompt.template_kwargs}
        names |= {"messages": messages, "tools": prompt.tools, "add_generation_prompt": add_generation_prompt}
        size, pieces = 0, []
        try:
            for piece in self._template.generate(names):
                size += len(piece)
                if size > MAX_RENDERED_CHARS:
                    message = f"The chat template wrote more than {MAX_RENDERED_CHARS} characters."
                    raise InvalidRequest(message, field=Field.CONVERSATION)
                pieces.append(piece)
        except InvalidRequest:
            raise
        except SecurityError as error:
            raise _refusal(f"tried something its sandbox forbids: {_shown(error)}") from error
        except Exception as error:  # the template is foreign code, and may not support these messages
            raise _refusal(f"refused these messages: {_shown(error)}") from error
        return "".join(pieces)


def _refusal(what: str) -> InvalidRequest:
    return InvalidRequest(f"The model's chat template {what}", field=Field.CONVERSATION, code="chat_template_error")


def _shown(error: Exception) -> str:
    """The error's text for messages. Not all exceptions have a text, and some are named by it only."""
    if isinstance(error, MemoryError):
        return "it needed more memory than it may take"
    text = str(error) or type(error).__name__
    return text if len(text) <= MAX_REASON_CHARS else f"{text[:MAX_REASON_CHARS]}..."


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
