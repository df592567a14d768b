"""The default model's own template and tokenizer: recognised, and its calls accepted token by token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime.engines.model_folder import ModelFolder, read_model_folder
from runtime.protocol.request import ChatPrompt, Grammar, GrammarKind, ToolChoice, ToolMode
from runtime.text.chat_template import ChatTemplate
from runtime.text.constraints.compiler import GrammarCompiler
from runtime.text.constraints.constraint import Constraint, ConstraintBroken
from runtime.text.formats.protocol import ToolFormat
from runtime.text.formats.recognition import TOOL_FORMATS, is_native, tool_format
from runtime.text.tokenizer import ModelTokenizer

pytestmark = pytest.mark.model

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
CALL = '<tool_call>[{"name": "weather", "arguments": {"city": "Zürich"}}]</tool_call>'


@pytest.fixture(scope="module")
def folder(default_home: Path) -> ModelFolder:
    [config] = default_home.glob("models/*/*/*/genai_config.json")
    return read_model_folder(config.parent)


@pytest.fixture(scope="module")
def tokenizer(folder: ModelFolder) -> ModelTokenizer:
    return ModelTokenizer(folder.tokenizer_path)


@pytest.fixture(scope="module")
def compiler(folder: ModelFolder, tokenizer: ModelTokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, folder.eos_ids, folder.vocab_size)


def test_its_template_is_recognised_and_renders_tools(folder: ModelFolder) -> None:
    assert folder.chat_template is not None
    family = tool_format(None, folder.chat_template)
    assert family is not None
    assert (family.name, is_native(folder.chat_template)) == ("smollm", False)
    messages = family.messages([{"role": "user", "content": "How warm is it?"}], TOOLS, native=False)
    text = ChatTemplate(folder.chat_template, folder.special_tokens).render(ChatPrompt(messages=messages))
    assert f"<tools>{json.dumps(TOOLS)}</tools>" in text
    assert text.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("name", sorted(TOOL_FORMATS))
@pytest.mark.parametrize("mode", ToolMode)
def test_every_familys_grammar_compiles_for_it(name: str, mode: ToolMode, compiler: GrammarCompiler) -> None:
    assert constraint(TOOL_FORMATS[name], ToolChoice(mode=mode), compiler).allowed() is not None


@pytest.mark.parametrize(("mode", "before"), [(ToolMode.REQUIRED, ""), (ToolMode.AUTO, ""), (ToolMode.AUTO, "Let me look. ")])
def test_its_tokens_write_a_call(mode: ToolMode, before: str, tokenizer: ModelTokenizer, compiler: GrammarCompiler) -> None:
    row = constraint(TOOL_FORMATS["smollm"], ToolChoice(mode=mode), compiler)
    for token in tokenizer.encode(before + CALL, add_special_tokens=False):
        mask = row.allowed()
        assert mask is not None
        assert mask[token // 8] >> token % 8 & 1
        row.accept(token)
    assert row.is_complete


def test_its_tokens_cannot_call_another_tool(tokenizer: ModelTokenizer, compiler: GrammarCompiler) -> None:
    row = constraint(TOOL_FORMATS["smollm"], ToolChoice(), compiler)
    tokens = tokenizer.encode(CALL.replace("weather", "wether"), add_special_tokens=False)
    with pytest.raises(ConstraintBroken):
        _accept_all(row, tokens)


def _accept_all(row: Constraint, tokens: list[int]) -> None:
    for token in tokens:
        row.accept(token)


def constraint(family: ToolFormat, choice: ToolChoice, compiler: GrammarCompiler) -> Constraint:
    return compiler.compile(Grammar(kind=GrammarKind.CALLS, source=family.grammar(TOOLS, choice)))()
