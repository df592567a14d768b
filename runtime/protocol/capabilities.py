"""What a request needs of a model, and the refusal of one that cannot do it. Pure; knows no engine."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from model_registry.records import Capability
from runtime.protocol.errors import Field, InvalidRequest, NotReady
from runtime.protocol.messages import ModelInfo
from runtime.protocol.request import ChatPrompt, Prompt, SamplingParams, ToolMode


@dataclass(frozen=True, slots=True)
class Need:
    """field: the part of the request that needs it, for refusals. adapter: the name of the one that is needed; None: none."""

    capability: Capability
    field: Field
    adapter: str | None = None


def needs_of(prompt: Prompt, params: SamplingParams | None = None, adapter: str | None = None) -> tuple[Need, ...]:
    """Of a generation. adapter: the name of the one that the request chose; None: none."""
    is_chat = isinstance(prompt, ChatPrompt)
    needs = [Need(Capability.CHAT, Field.CONVERSATION) if is_chat else Need(Capability.COMPLETION, Field.PROMPT)]
    if params is not None and params.grammar is not None:
        needs.append(Need(Capability.FORMS, params.grammar.field))
    if isinstance(prompt, ChatPrompt) and prompt.tools and prompt.tool_choice.mode is ToolMode.REQUIRED:
        needs.append(Need(Capability.FORMS, Field.TOOL_CHOICE))
    if adapter is not None:
        needs.append(Need(Capability.ADAPTERS, Field.MODEL, adapter))
    return tuple(needs)


def check_allowed(label: str, allowed: Collection[Capability], needs: Iterable[Need]) -> None:
    """Before a version is loaded. allowed: by its manifest. Raises InvalidRequest.

    Whether a model that continues text can also chat is left to `check_loaded`, which knows why it cannot.
    """
    for need in needs:
        is_left = need.capability is Capability.CHAT and Capability.COMPLETION in allowed
        if need.capability not in allowed and not is_left:
            raise _unsupported(label, allowed, need)


def check_loaded(label: str, info: ModelInfo, needs: Iterable[Need]) -> None:
    """Raises InvalidRequest for the first need that the loaded model cannot meet, NotReady while an adapter comes or goes."""
    for need in needs:
        if need.capability in info.capabilities:
            if need.adapter is not None and need.adapter not in info.adapters:
                raise _adapter_changes(label, need.adapter)
            continue
        match need.capability:
            case Capability.CHAT if Capability.COMPLETION in info.capabilities:
                raise lacks_chat(info.chat_template_error)
            case Capability.FORMS:
                raise lacks_forms(need.field)
            case Capability.ADAPTERS:
                raise _lacks_adapters(label, info)
            case _:
                raise _unsupported(label, info.capabilities, need)


def lacks_chat(template_error: str | None) -> InvalidRequest:
    """template_error: why the model's chat template does not compile; None when it has none."""
    if template_error is None:
        return InvalidRequest(
            f"This model has no chat template: it continues text. Send a {Field.PROMPT.quoted}, or use a model tuned for chat.",
            field=Field.CONVERSATION,
            code="no_chat_template",
        )
    return InvalidRequest(
        f"This model cannot chat: {template_error}. Send a {Field.PROMPT.quoted}, or import the model again with a template that "
        "compiles.",
        field=Field.CONVERSATION,
        code="chat_template_error",
    )


def lacks_forms(field: Field) -> InvalidRequest:
    return InvalidRequest(
        f"The engine of this model cannot follow {field.quoted}. Leave it out, or serve the model with another engine.",
        field=field,
        code="unsupported_parameter",
    )


def _lacks_adapters(label: str, info: ModelInfo) -> InvalidRequest:
    why = f"{label} runs on the engine {info.engine} ({info.provider}), which serves no adapters"
    return InvalidRequest(f"{why}. Load it with engine onnx, or merge the adapter.", field=Field.MODEL)


def _adapter_changes(label: str, adapter: str) -> NotReady:
    why = f"The adapter {adapter} of {label} is being attached or detached. Retry in a moment."
    return NotReady(why, code="model_loading", retry_after_s=1.0)


def _unsupported(label: str, able: Collection[Capability], need: Need) -> InvalidRequest:
    known = ", ".join(sorted(able)) or "nothing"
    return InvalidRequest(
        f"{label} does not support {need.capability}; it supports {known}. Choose another model.",
        field=Field.MODEL,
        code="unsupported_capability",
    )
