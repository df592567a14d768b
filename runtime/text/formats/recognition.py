"""Chooses a family's formats for a model: by name, or by its chat template's text. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from runtime.text.formats.deepseek import BEGIN, DeepSeek
from runtime.text.formats.gemma import Gemma
from runtime.text.formats.generic import Generic
from runtime.text.formats.hermes import Hermes
from runtime.text.formats.llama3 import Llama3
from runtime.text.formats.mistral import ARGS, Mistral
from runtime.text.formats.phi4 import FUNCTOOLS, Phi4
from runtime.text.formats.protocol import REASONING_FORMATS, ReasoningFormat, ToolFormat
from runtime.text.formats.smollm import SmolLM

NONE = "none"  # in place of a format's name: the model has none

TOOL_FORMATS: Mapping[str, ToolFormat] = MappingProxyType(
    {known.name: known for known in (Hermes(), Llama3(), Mistral(), Phi4(), DeepSeek(), SmolLM(), Gemma(), Generic())}
)

# Texts that only this family's templates contain, by its format's name. The first that is found decides.
_SIGNS = (
    (BEGIN, "deepseek"),
    ("<function=", "generic"),  # Qwen3-Coder: arguments as tagged text, whose types are only in the tool's schema
    ("<arg_key>", "generic"),  # GLM 4.5: likewise
    ("<tool_call>", "hermes"),
    ("[TOOL_CALLS]", "mistral"),
    ("<|/tool_call|>", "phi4"),
    ("<|/tool|>", "phi4"),
    (FUNCTOOLS, "phi4"),
    ("Environment: ipython", "llama3"),
    ('"parameters": dictionary of argument name', "llama3"),
    ("named SmolLM, trained by Hugging Face", "smollm"),
    ("<start_function_call>", "generic"),  # FunctionGemma: arguments in a notation of its own
    ("python list", "generic"),  # calls as Python
    ("<start_of_turn>", "gemma"),
)
_JSON_ARGUMENTS = re.compile(r"arguments['\"]?\]?\s*\|\s*tojson")


def tool_format(name: str | None, template: str | None) -> ToolFormat | None:
    """name None: by the template. A model without a chat template has none. Raises ValueError for an unknown name."""
    if name is not None and name != NONE:
        tool_format_by_name(name)
    if template is None or name == NONE:
        return None
    match name or next((family for sign, family in _SIGNS if sign in template), "generic"):
        case "deepseek":
            return DeepSeek(fenced="```json" in template, arguments_as_text=_JSON_ARGUMENTS.search(template) is None)
        case "mistral":
            return Mistral(in_list=ARGS not in template)
        case "phi4":
            return Phi4(functools=FUNCTOOLS in template)
        case family:
            return TOOL_FORMATS[family]


def reasoning_format(name: str | None, template: str | None) -> ReasoningFormat | None:
    """name None: by the template. Raises ValueError for an unknown name."""
    if name == NONE:
        return None
    if name is not None:
        return reasoning_format_by_name(name)
    return next((known for known in REASONING_FORMATS.values() if template is not None and known.close in template), None)


def tool_format_by_name(name: str) -> ToolFormat:
    """Enough to read answers; `tool_format` also knows how its template writes. Raises ValueError for an unknown name."""
    if name not in TOOL_FORMATS:
        raise _unknown("tool_format", name, TOOL_FORMATS)
    return TOOL_FORMATS[name]


def reasoning_format_by_name(name: str) -> ReasoningFormat:
    """Raises ValueError for an unknown name."""
    if name not in REASONING_FORMATS:
        raise _unknown("reasoning_format", name, REASONING_FORMATS)
    return REASONING_FORMATS[name]


def is_native(template: str) -> bool:
    """Whether the chat template itself writes tools."""
    return re.search(r"\btools\b", template) is not None


def _unknown(field: str, name: str, known: Mapping[str, object]) -> ValueError:
    names = ", ".join((*known, NONE))
    return ValueError(f"{field} {name!r} is not known. Choose one of {names}, or leave it out to go by the chat template.")
