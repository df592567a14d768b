"""How families mark the thought that comes before an answer. Knows no tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from runtime.chat_formats.delta import ReasoningDelta
from runtime.chat_formats.reader import Reader, Script


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    """open, close: the tags around a thought; special tokens of some models, text of others."""

    name: str
    open: str
    close: str

    def ends_in_thought(self, prompt: str) -> bool:
        """Whether the rendered prompt has opened a thought, which the answer then only closes."""
        return prompt.rstrip().endswith(self.open)

    def read(self, reader: Reader, *, in_thought: bool) -> Script[None]:
        """Says the thought, if the answer begins with one. in_thought: the prompt ended in one."""
        place = reader.at
        yield from reader.spaces()
        if not (yield from reader.accept(self.open)) and not in_thought:
            reader.back_to(place)
            return
        yield from reader.spaces()
        if (yield from reader.say_until((self.close,), ReasoningDelta)) is not None:
            yield from reader.spaces()


THINK = ReasoningFormat("think", "<think>", "</think>")  # DeepSeek R1, Qwen 3, SmolLM3, Phi-4-reasoning
MISTRAL = ReasoningFormat("mistral", "[THINK]", "[/THINK]")  # Magistral, Ministral 3

REASONING_FORMATS: Mapping[str, ReasoningFormat] = MappingProxyType({known.name: known for known in (THINK, MISTRAL)})
