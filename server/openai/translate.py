"""OpenAI's requests as the gateway's one internal request. Pure: values in, a value or InvalidRequest out."""

from __future__ import annotations

from typing import Any

from runtime.errors import InvalidRequest
from runtime.request import ChatPrompt, SamplingParams, TextPrompt, TokensPrompt
from server.gateway import InferenceRequest
from server.openai.chat_wire import ChatRequest, Message
from server.openai.completion_wire import CompletionRequest
from server.openai.refusals import CHAT, COMPLETION, STREAM_OPTIONS, refuse_unsupported
from server.openai.sampling_wire import SamplingFields

DEFAULT_COMPLETION_TOKENS = 16
_TEMPLATE_RESERVED = frozenset({"messages", "tools", "add_generation_prompt", "continue_final_message"})


def translate_chat(request: ChatRequest) -> InferenceRequest:
    """Raises InvalidRequest for what is not supported, or contradicts itself."""
    refuse_unsupported(request.unknown, CHAT)
    _refuse_stream_options(request)
    max_tokens = request.max_completion_tokens or request.max_tokens
    continues = bool(request.continue_final_message)
    if continues and request.add_generation_prompt:
        raise InvalidRequest(
            "'continue_final_message' and 'add_generation_prompt' exclude each other: send one of them.",
            param="continue_final_message",
        )
    prompt = ChatPrompt(
        messages=[_message(message) for message in request.messages],
        template_kwargs=_template_kwargs(request.chat_template_kwargs or {}),
        add_generation_prompt=not continues if request.add_generation_prompt is None else request.add_generation_prompt,
        continue_final_message=continues,
    )
    return InferenceRequest(
        (prompt,), _params(request, max_tokens), request.priority or 0, keep_alive_s=request.keep_alive_s
    )


def translate_completion(request: CompletionRequest) -> InferenceRequest:
    """One prompt, and so one choice, per text or list of token ids. Raises InvalidRequest."""
    refuse_unsupported(request.unknown, COMPLETION)
    _refuse_stream_options(request)
    special = request.add_special_tokens is not False
    prompts = [
        TextPrompt(text=each, add_special_tokens=special) if isinstance(each, str) else TokensPrompt(token_ids=each)
        for each in request.prompt
    ]
    params = _params(request, request.max_tokens or DEFAULT_COMPLETION_TOKENS)
    return InferenceRequest(
        prompts,
        params,
        request.priority or 0,
        return_prompt_text=bool(request.echo),
        keep_alive_s=request.keep_alive_s,
    )


def _refuse_stream_options(request: SamplingFields) -> None:
    if request.stream_options is not None:
        refuse_unsupported(request.stream_options.model_extra or {}, STREAM_OPTIONS, within="stream_options")


def _message(message: Message) -> dict[str, Any]:
    """As chat templates take it: what the client left out is left out."""
    fields = {"role": message.role, "content": message.content or ""}
    extras = {"name": message.name, "reasoning_content": message.reasoning_content}
    return fields | {name: value for name, value in extras.items() if value is not None}


def _template_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    reserved = sorted(_TEMPLATE_RESERVED & kwargs.keys())
    if reserved:
        name = f"chat_template_kwargs.{reserved[0]}"
        raise InvalidRequest(f"{name!r} is set by the server; send it as a field of the request, if at all.", param=name)
    return kwargs


def _params(request: SamplingFields, max_tokens: int | None) -> SamplingParams:
    min_tokens = request.min_tokens or 0
    if max_tokens is not None and min_tokens > max_tokens:
        raise InvalidRequest(
            f"'min_tokens' is {min_tokens}, more than the {max_tokens} of max_tokens; lower it.", param="min_tokens"
        )
    return SamplingParams(
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p,
        min_p=request.min_p,
        typical_p=request.typical_p,
        repetition_penalty=request.repetition_penalty,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        logit_bias={int(token): bias for token, bias in (request.logit_bias or {}).items()},
        seed=None if request.seed is None else request.seed % 2**64,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        stop=tuple(request.stop),
        stop_token_ids=tuple(request.stop_token_ids or ()),
        include_stop_str_in_output=bool(request.include_stop_str_in_output),
        ignore_eos=bool(request.ignore_eos),
        skip_special_tokens=request.skip_special_tokens is not False,
    )
