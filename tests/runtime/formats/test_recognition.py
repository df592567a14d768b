"""A model's formats by name, or by its chat template."""

from __future__ import annotations

import pytest

from runtime.text.formats.deepseek import DeepSeek
from runtime.text.formats.mistral import Mistral
from runtime.text.formats.phi4 import Phi4
from runtime.text.formats.recognition import (
    TOOL_FORMATS,
    is_native,
    reasoning_format,
    reasoning_format_by_name,
    tool_format,
    tool_format_by_name,
)

# The parts of families' templates that distinguish them.
QWEN = """{%- if tools %}... within <tool_call></tool_call> XML tags:\\n{% endif %}{{ tool_call.arguments | tojson }}"""
QWEN3 = QWEN + "{{ '<think>\\n\\n</think>\\n\\n' }}"
LLAMA = """{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}"""
MISTRAL_LIST = """{%- if tools %}[AVAILABLE_TOOLS]{%- endif %}{{ "[TOOL_CALLS] [" }}{{ tool_call.function|tojson }}"""
MISTRAL_NAMED = """[AVAILABLE_TOOLS]{{ tools|tojson }}{{ '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}[THINK][/THINK]"""
PHI4 = """{% if 'tools' in message %}{{ '<|tool|>' + message['tools'] + '<|/tool|>' }}{% endif %}"""
PHI4_FUNCTOOLS = """{%- if tools %}prefix function calls with functools marker{%- endif %}"""
R1_DISTILLED = (
    """{{ '<｜tool▁calls▁begin｜>' + '```json' + tool['function']['arguments'] }}{{ '<｜Assistant｜><think>\\n' }}</think>"""
)
V3_1 = """{{'<｜tool▁calls▁begin｜>' + tool['function']['name'] + '<｜tool▁sep｜>' + tool['function']['arguments'] }}</think>"""
V3_1_WITH_TOOLS = """{% if tools %}{{ tools }}{% endif %}<｜tool▁calls▁begin｜>{{ tool['function']['arguments']|tojson }}</think>"""
SMOLLM2 = """You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>"""
GEMMA = """{{ '<start_of_turn>' + role }}"""
CHATML = """{{ '<|im_start|>' + message['role'] }}"""
QWEN_CODER = """{% if tools %}<tool_call>\\n<function=example_function_name>{% endif %}"""


@pytest.mark.parametrize(
    ("template", "name", "native", "reasoning"),
    [
        (QWEN, "hermes", True, None),
        (QWEN3, "hermes", True, "think"),
        (LLAMA, "llama3", True, None),
        (MISTRAL_LIST, "mistral", True, None),
        (MISTRAL_NAMED, "mistral", True, "mistral"),
        (PHI4, "phi4", True, None),
        (PHI4_FUNCTOOLS, "phi4", True, None),
        (R1_DISTILLED, "deepseek", False, "think"),
        (V3_1, "deepseek", False, "think"),
        (V3_1_WITH_TOOLS, "deepseek", True, "think"),
        (SMOLLM2, "smollm", False, None),
        (GEMMA, "gemma", False, None),
        (CHATML, "generic", False, None),
        (QWEN_CODER, "generic", True, None),
    ],
)
def test_a_template_shows_the_family(template: str, name: str, native: bool, reasoning: str | None) -> None:
    tools, thoughts = tool_format(None, template), reasoning_format(None, template)
    assert tools is not None
    assert (tools.name, is_native(template)) == (name, native)
    assert (thoughts.name if thoughts else None) == reasoning


def test_a_template_shows_the_way_within_a_family() -> None:
    assert tool_format(None, MISTRAL_LIST) == Mistral(in_list=True)
    assert tool_format("mistral", MISTRAL_NAMED) == Mistral(in_list=False)
    assert tool_format(None, PHI4) == Phi4(functools=False)
    assert tool_format(None, PHI4_FUNCTOOLS) == Phi4(functools=True)
    assert tool_format(None, R1_DISTILLED) == DeepSeek(fenced=True, arguments_as_text=True)
    assert tool_format(None, V3_1) == DeepSeek(fenced=False, arguments_as_text=True)
    assert tool_format(None, V3_1_WITH_TOOLS) == DeepSeek(fenced=False, arguments_as_text=False)


def test_a_name_wins_over_the_template() -> None:
    tools, thoughts = tool_format("llama3", QWEN), reasoning_format("mistral", QWEN3)
    assert tools is not None
    assert thoughts is not None
    assert (tools.name, thoughts.name) == ("llama3", "mistral")
    assert tool_format("none", QWEN) is None
    assert reasoning_format("none", QWEN3) is None


def test_a_model_without_a_chat_template_calls_no_tools() -> None:
    assert tool_format(None, None) is None
    assert tool_format("hermes", None) is None
    assert reasoning_format(None, None) is None


def test_every_format_is_found_by_its_own_name() -> None:
    for name in TOOL_FORMATS:
        assert tool_format_by_name(name).name == name
    assert reasoning_format_by_name("think").close == "</think>"


@pytest.mark.parametrize("template", [None, QWEN])
def test_an_unknown_name_is_refused_with_those_that_are_known(template: str | None) -> None:
    with pytest.raises(ValueError, match=r"tool_format 'qwen' is not known\. Choose one of hermes, .*generic, none"):
        tool_format("qwen", template)
    with pytest.raises(ValueError, match=r"reasoning_format 'qwen' is not known\. Choose one of think, mistral, none"):
        reasoning_format("qwen", template)


@pytest.mark.parametrize(
    ("prompt", "in_thought"),
    [
        ("<|Assistant|><think>\n", True),
        ("<|im_start|>assistant\n<think>", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("What does <think> mean?<|im_start|>assistant\n", False),
    ],
)
def test_a_prompt_may_end_in_a_thought(prompt: str, in_thought: bool) -> None:
    assert reasoning_format_by_name("think").ends_in_thought(prompt) is in_thought
