"""What a family's way to call tools is asked for. One file per family implements it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from runtime.chat_formats.delta import AnswerParser
from runtime.request import ToolChoice

Message = dict[str, Any]
Tool = dict[str, Any]


class ToolFormat(Protocol):
    """Stateless. `tools` as in `ChatPrompt`."""

    @property
    def name(self) -> str:
        """As settings and `ModelInfo.tool_format` say it: `hermes`, `llama3`, `mistral`..."""
        ...

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Special tokens that calls are written with: the parser needs to see them, so they must not be skipped."""
        ...

    def messages(self, messages: Sequence[Message], tools: Sequence[Tool], *, native: bool) -> list[Message]:
        """The conversation as this family's templates take it. Without tools it may still hold calls and results.

        native: the chat template itself writes tools, calls and results, and is given the tools beside. Otherwise tools become
        part of the system message, calls text of the assistant, results a turn of the user.
        """
        ...

    def grammar(self, tools: Sequence[Tool], choice: ToolChoice) -> str:
        """A Lark grammar (llguidance's) of the whole answer. There are tools, and `choice.names` are among them.

        AUTO: any text, and calls wherever the model begins one. REQUIRED: calls only. Arguments follow each tool's schema; what
        no grammar can express is passed over. Raises InvalidRequest where the tool is strict.
        """
        ...

    def parser(self) -> AnswerParser:
        """For one answer, without its thought."""
        ...
