"""Messages, tools and reasoning effort as the text that a model was trained on. Knows no tokens, and not where a template runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import msgspec

from runtime.protocol.capabilities import lacks_chat
from runtime.protocol.errors import Field, InvalidRequest
from runtime.protocol.messages import EngineOptions
from runtime.protocol.request import ChatPrompt
from runtime.text.formats.conversation import in_user_turns, is_instruction
from runtime.text.formats.protocol import ReasoningFormat, ToolFormat
from runtime.text.formats.recognition import is_native, reasoning_format, tool_format

NO_THOUGHT = "none"  # the reasoning effort that every model can make
_PROBE = "instructions"


class Template(Protocol):
    """A model's chat template, in this process (`chat_template.ChatTemplate`) or in another one."""

    def render(self, prompt: ChatPrompt) -> str:
        """Raises InvalidRequest when the template refuses the messages."""
        ...


@dataclass(frozen=True, slots=True)
class ChatFormats:
    """How a model writes tool calls and thoughts; None: not at all. is_native: its chat template itself writes tools."""

    tools: ToolFormat | None = None
    reasoning: ReasoningFormat | None = None
    is_native: bool = False

    @classmethod
    def of(cls, options: EngineOptions, template: str | None) -> ChatFormats:
        """The formats that the options name, else those that the template's source shows. Raises ValueError for unknown names."""
        return cls(
            tools=tool_format(options.tool_format, template),
            reasoning=reasoning_format(options.reasoning_format, template),
            is_native=template is not None and is_native(template),
        )

    @property
    def tools_name(self) -> str | None:
        return None if self.tools is None else self.tools.name

    @property
    def reasoning_name(self) -> str | None:
        return None if self.reasoning is None else self.reasoning.name


class ChatPrompts:
    """template None: the model takes no chat messages."""

    def __init__(self, template: Template | None, formats: ChatFormats) -> None:
        self._template = template
        self._formats = formats

    def text(self, prompt: ChatPrompt) -> str:
        """Raises InvalidRequest."""
        if self._template is None:
            raise lacks_chat(None)
        kwargs = {**self._effort(prompt.reasoning_effort), **prompt.template_kwargs}
        shown = msgspec.structs.replace(prompt, template_kwargs=kwargs)
        tools = prompt.tools or []
        if tools or any(_is_about_tools(message) for message in prompt.messages):
            formats = self._formats
            if formats.tools is None:
                raise InvalidRequest(
                    f"This model has no format for tool calls. Leave {Field.TOOLS.quoted} out, or set tool_format for the model.",
                    field=Field.TOOLS if tools else Field.CONVERSATION,
                    code="unsupported_parameter",
                )
            messages = formats.tools.messages(prompt.messages, tools, native=formats.is_native)
            shown = msgspec.structs.replace(shown, messages=messages, tools=tools if tools and formats.is_native else None)
        if any(map(is_instruction, shown.messages)) and not self._takes_instructions:
            shown = msgspec.structs.replace(shown, messages=in_user_turns(shown.messages))
        return self._template.render(shown)

    @cached_property
    def _takes_instructions(self) -> bool:
        """Whether the template has a system role. Some refuse one ("System role not supported"), others leave its message out."""
        user = {"role": "user", "content": _PROBE}
        return not self._shows_probe([user]) or self._shows_probe([{**user, "role": "system"}, {**user, "content": "Hello"}])

    def _shows_probe(self, messages: list[dict[str, Any]]) -> bool:
        assert self._template is not None
        try:
            return _PROBE in self._template.render(ChatPrompt(messages=messages))
        except InvalidRequest:
            return False

    def _effort(self, effort: str | None) -> dict[str, Any]:
        """What templates call it: Qwen's and SmolLM's `enable_thinking`, others' `reasoning_effort`."""
        if effort is None:
            return {}
        if self._formats.reasoning is None and effort != NO_THOUGHT:
            raise InvalidRequest(
                f"This model does not reason before it answers. Leave {Field.REASONING_EFFORT.quoted} out, or choose none.",
                field=Field.REASONING_EFFORT,
                code="unsupported_parameter",
            )
        return {"enable_thinking": effort != NO_THOUGHT, "reasoning_effort": effort}


def _is_about_tools(message: dict[str, Any]) -> bool:
    return message.get("role") == "tool" or bool(message.get("tool_calls"))
