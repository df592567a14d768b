"""What requests need, and what refuses them: before a version is loaded by its manifest, afterwards by the loaded model."""

from __future__ import annotations

from typing import Any

import pytest

from model_registry.records import DECODER, Capability
from runtime.protocol.capabilities import Need, check_allowed, check_loaded, needs_of
from runtime.protocol.errors import Field, InvalidRequest, NotReady
from runtime.protocol.messages import ModelInfo
from runtime.protocol.request import ChatPrompt, Grammar, GrammarKind, SamplingParams, TextPrompt, ToolChoice, ToolMode

CHAT = ChatPrompt(messages=[{"role": "user", "content": "Hello"}])
TOOLS = [{"type": "function", "function": {"name": "weather"}}]
SCHEMA = SamplingParams(grammar=Grammar(kind=GrammarKind.JSON_SCHEMA, source="{}"))


def info(*capabilities: Capability, **others: Any) -> ModelInfo:
    fixed: dict[str, Any] = {"engine": "genai", "provider": "CPU", "architecture": "x", "context_length": 1, "vocab_size": 1}
    numbers = dict.fromkeys(("num_slots", "threads", "load_s", "resident_bytes", "pid"), 1)
    return ModelInfo(capabilities=frozenset(capabilities), **fixed, **numbers, **others)


def required(**choice: Any) -> ChatPrompt:
    return ChatPrompt(messages=CHAT.messages, tools=TOOLS, tool_choice=ToolChoice(**choice))


@pytest.mark.parametrize(
    ("requested", "needs"),
    [
        ((TextPrompt(text="x"),), [("completion", "prompt")]),
        ((CHAT,), [("chat", "conversation")]),
        ((CHAT, SCHEMA), [("chat", "conversation"), ("forms", "form")]),
        ((required(mode=ToolMode.REQUIRED), SamplingParams()), [("chat", "conversation"), ("forms", "tool_choice")]),
        ((required(mode=ToolMode.AUTO), SamplingParams()), [("chat", "conversation")]),
        ((TextPrompt(text="x"), SamplingParams(), "support"), [("completion", "prompt"), ("adapters", "model")]),
    ],
)
def test_a_request_needs_what_it_names(requested: tuple[Any, ...], needs: list[tuple[str, str]]) -> None:
    assert [(each.capability.value, each.field.value) for each in needs_of(*requested)] == needs


@pytest.mark.parametrize(
    ("loaded", "need", "field", "code"),
    [
        (info(Capability.COMPLETION), Need(Capability.CHAT, Field.CONVERSATION), Field.CONVERSATION, "no_chat_template"),
        (
            info(Capability.COMPLETION, chat_template_error="line 2"),
            Need(Capability.CHAT, Field.CONVERSATION),
            Field.CONVERSATION,
            "chat_template_error",
        ),
        (info(Capability.COMPLETION), Need(Capability.FORMS, Field.TOOL_CHOICE), Field.TOOL_CHOICE, "unsupported_parameter"),
        (info(Capability.COMPLETION), Need(Capability.ADAPTERS, Field.MODEL, "support"), Field.MODEL, None),
        (info(Capability.EMBEDDING), Need(Capability.COMPLETION, Field.PROMPT), Field.MODEL, "unsupported_capability"),
        (info(Capability.EMBEDDING), Need(Capability.CHAT, Field.CONVERSATION), Field.MODEL, "unsupported_capability"),
    ],
)
def test_a_loaded_model_refuses_what_it_cannot_do(loaded: ModelInfo, need: Need, field: Field, code: str | None) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_loaded("m:1", loaded, [need])
    assert (refused.value.field, refused.value.code) == (field, code)


def test_what_it_can_do_passes() -> None:
    able = info(*DECODER, adapters=("support",))
    check_loaded("m:1", able, needs_of(CHAT, SCHEMA, "support"))


def test_an_adapter_that_the_workers_do_not_have_yet_is_a_matter_of_time() -> None:
    with pytest.raises(NotReady) as refused:
        check_loaded("m:1", info(*DECODER, adapters=("other",)), needs_of(CHAT, SCHEMA, "support"))
    assert (refused.value.code, refused.value.retry_after_s) == ("model_loading", 1.0)


def test_a_version_that_does_not_allow_it_is_refused_before_it_is_loaded() -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_allowed("m:1", {Capability.EMBEDDING}, needs_of(CHAT))
    assert refused.value.code == "unsupported_capability"
    assert "embedding" in refused.value.message


def test_why_a_decoder_cannot_chat_is_known_once_it_is_loaded() -> None:
    check_allowed("m:1", {Capability.COMPLETION}, needs_of(CHAT))
