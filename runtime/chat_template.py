"""Messages to the text a model was trained on, by its own Jinja template, in a sandbox. Knows no tokens.

Conventions follow Hugging Face's `apply_chat_template`: trimmed blocks, loop controls, `raise_exception`, `strftime_now`, `tojson`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runtime.errors import InvalidRequest
from runtime.messages import ChatPrompt

MAX_RENDERED_CHARS = 32 << 20


class ChatTemplate:
    """A compiled template. special_tokens: `bos_token`, `eos_token`... as the template may name them."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Raises ValueError when the template does not compile."""
        self._special = dict(special_tokens)
        self._environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        self._environment.filters["tojson"] = _tojson
        self._environment.globals["raise_exception"] = _raise_exception
        self._environment.globals["strftime_now"] = lambda fmt: datetime.now().astimezone().strftime(fmt)
        try:
            self._template = self._environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"the chat template does not compile: {error}") from error

    def render(self, prompt: ChatPrompt) -> str:
        """Raises InvalidRequest when the template refuses the messages or reaches for what the sandbox forbids."""
        rendered = self._run(prompt, prompt.add_generation_prompt and not prompt.continue_final_message)
        if not prompt.continue_final_message:
            return rendered
        final = str(prompt.messages[-1].get("content") or "").strip() if prompt.messages else ""
        at = rendered.rfind(final) if final else -1
        if at < 0:
            raise InvalidRequest(
                "continue_final_message needs a last message with content that the chat template keeps.",
                param="continue_final_message",
            )
        return rendered[: at + len(final)]

    def _run(self, prompt: ChatPrompt, add_generation_prompt: bool) -> str:
        names = {**self._special, **prompt.template_kwargs}
        names |= {"messages": prompt.messages, "tools": prompt.tools, "add_generation_prompt": add_generation_prompt}
        size, pieces = 0, []
        try:
            for piece in self._template.generate(names):
                size += len(piece)
                if size > MAX_RENDERED_CHARS:
                    raise InvalidRequest(f"The chat template wrote more than {MAX_RENDERED_CHARS} characters.", param="messages")
                pieces.append(piece)
        except jinja2.exceptions.SecurityError as error:
            raise InvalidRequest(f"The model's chat template tried something its sandbox forbids: {error}") from error
        except (jinja2.TemplateError, TypeError, ValueError, OverflowError, RecursionError, LookupError) as error:
            raise InvalidRequest(
                f"The model's chat template refused these messages: {error}", param="messages", code="chat_template_error"
            ) from error
        return "".join(pieces)


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
