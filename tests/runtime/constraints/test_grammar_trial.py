"""A grammar's trial agrees with its compilation for a model: what serves is not refused, and what is refused is not compiled."""

from __future__ import annotations

import pytest

from runtime.engines.fake import EOS, VOCAB_SIZE, ByteTokenizer
from runtime.protocol.errors import InvalidRequest
from runtime.protocol.request import Grammar, GrammarKind, ToolChoice, ToolMode
from runtime.text.constraints.compiler import GrammarCompiler
from runtime.text.constraints.lark import complaint
from runtime.text.formats.recognition import TOOL_FORMATS

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}
FORM = Grammar(kind=GrammarKind.REGEX, source="a+")


@pytest.mark.parametrize("family", sorted(TOOL_FORMATS))
@pytest.mark.parametrize("mode", ToolMode)
def test_the_calls_of_every_family_pass(family: str, mode: ToolMode) -> None:
    assert complaint(TOOL_FORMATS[family].grammar([TOOL], ToolChoice(mode=mode))) is None


def test_what_the_trial_refuses_is_refused_again_without_another_trial() -> None:
    tried: list[str] = []

    def refuse(lark: str) -> str:
        tried.append(lark)
        return "it is too complex to compile"

    compiler = GrammarCompiler(ByteTokenizer(), {EOS}, VOCAB_SIZE, trial=refuse)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="too complex to compile") as caught:
            compiler.compile(FORM)
        assert (caught.value.field, caught.value.code) == (FORM.field, "invalid_grammar")
    assert len(tried) == 1


def test_what_passes_is_compiled() -> None:
    constraint = GrammarCompiler(ByteTokenizer(), {EOS}, VOCAB_SIZE, trial=complaint).compile(FORM)()
    constraint.accept(ord("a"))
    assert not constraint.is_complete
