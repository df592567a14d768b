"""OpenAI's requests as the gateway's one internal request. Pure: values in, a value or InvalidParam out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.protocol.request import ChatPrompt, Prompt, SamplingParams, TextPrompt, TokensPrompt
from server.dialects.openai.conversation import check_json_value, tools_of, turns_of
from server.dialects.openai.errors import InvalidParam
from server.dialects.openai.near_misses import refuse_near_constraints
from server.dialects.openai.refusals import CHAT, COMPLETION, STREAM_OPTIONS, refuse_unsupported
from server.dialects.openai.structured_output import grammar_of
from server.dialects.openai.wire.chat import ChatRequest
from server.dialects.openai.wire.completions import CompletionRequest
from server.dialects.openai.wire.sampling import SamplingFields
from server.inference.request import InferenceRequest

DEFAULT_COMPLETION_TOKENS = 16
_TEMPLATE_RESERVED = frozenset({"messages", "tools", "add_generation_prompt", "continue_final_message"})


def translate_chat(request: ChatRequest) -> InferenceRequest:
    """Raises InvalidParam for what is not supported, or contradicts itself."""
    refuse_unsupported(request.unknown, CHAT)
    refuse_near_constraints(request.unknown)
    if request.top_logprobs and not request.logprobs:
        raise InvalidParam("'top_logprobs' needs 'logprobs' to be true: send both.", param="top_logprobs")
    tools, choice = tools_of(request)
    continues = bool(request.continue_final_message)
    if continues and request.add_generation_prompt:
        raise InvalidParam(
            "'continue_final_message' and 'add_generation_prompt' exclude each other: send one of them.",
            param="continue_final_message",
        )
    prompt = ChatPrompt(
        messages=turns_of(request.messages),
        tools=tools,
        tool_choice=choice,
        reasoning_effort="xhigh" if request.reasoning_effort == "max" else request.reasoning_effort,
        template_kwargs=_template_kwargs(request.chat_template_kwargs or {}),
        add_generation_prompt=not continues if request.add_generation_prompt is None else request.add_generation_prompt,
        continue_final_message=continues,
    )
    params = _params(
        request,
        max_tokens=request.max_completion_tokens or request.max_tokens,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        prompt_logprobs=request.prompt_logprobs,
    )
    return _inference_request(request, (prompt,), params)


def translate_completion(request: CompletionRequest) -> InferenceRequest:
    """One prompt per text or list of token ids. Raises InvalidParam."""
    refuse_unsupported(request.unknown, COMPLETION)
    refuse_near_constraints(request.unknown)
    _check_completion(request)
    special = request.add_special_tokens is not False
    prompts = [
        TextPrompt(text=each, add_special_tokens=special) if isinstance(each, str) else TokensPrompt(token_ids=each)
        for each in request.prompt
    ]
    ranks = request.num_choices > (request.n or 1)
    params = _params(
        request,
        max_tokens=DEFAULT_COMPLETION_TOKENS if request.max_tokens is None else request.max_tokens,
        logprobs=0 if request.logprobs is None and ranks else request.logprobs,
        prompt_logprobs=_prompt_logprobs(request),
    )
    return _inference_request(request, prompts, params, return_prompt_text=bool(request.echo))


def _prompt_logprobs(request: CompletionRequest) -> int | None:
    """With `echo`, log probabilities include the prompt's.

    A prompt without an answer (max_tokens 0) is always computed with them.
    """
    if request.prompt_logprobs is not None or not request.echo:
        return request.prompt_logprobs
    return 0 if request.logprobs is None and request.max_tokens == 0 else request.logprobs


def _check_completion(request: CompletionRequest) -> None:
    """Fields that contradict each other."""
    if request.best_of is not None and request.best_of < (request.n or 1):
        raise InvalidParam(f"'best_of' is {request.best_of}, less than the {request.n} of 'n': raise it.", param="best_of")
    if request.stream and request.num_choices > (request.n or 1):
        raise InvalidParam("The best of several answers is known when all have ended: leave out 'stream'.", param="best_of")
    if request.max_tokens == 0 and not request.echo and request.prompt_logprobs is None:
        raise InvalidParam(
            "'max_tokens' is 0, so that there is nothing to answer: raise it, or send 'echo' or 'prompt_logprobs'.",
            param="max_tokens",
        )


def _inference_request(
    request: SamplingFields, prompts: Sequence[Prompt], params: SamplingParams, *, return_prompt_text: bool = False
) -> InferenceRequest:
    if request.stream_options is not None:
        refuse_unsupported(request.stream_options.model_extra or {}, STREAM_OPTIONS, within="stream_options")
        if request.stream_options.continuous_usage_stats and not request.stream_options.include_usage:
            name = "stream_options.continuous_usage_stats"
            raise InvalidParam(f"{name!r} needs 'stream_options.include_usage' to be true: send both.", param=name)
    if request.stream and request.prompt_logprobs is not None:
        raise InvalidParam("'prompt_logprobs' come with whole answers only: leave out 'stream'.", param="prompt_logprobs")
    return InferenceRequest(
        prompts,
        params,
        request.priority or 0,
        num_choices=request.num_choices,
        return_prompt_text=return_prompt_text,
        return_prompt_token_ids=bool(request.return_token_ids),
        keep_alive_s=request.keep_alive_s,
    )


def _template_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    reserved = sorted(_TEMPLATE_RESERVED & kwargs.keys())
    if reserved:
        name = f"chat_template_kwargs.{reserved[0]}"
        raise InvalidParam(f"{name!r} is set by the server; send it as a field of the request, if at all.", param=name)
    check_json_value(kwargs, "chat_template_kwargs")
    return kwargs


def _params(
    request: SamplingFields,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None,
) -> SamplingParams:
    min_tokens, budget = request.min_tokens or 0, request.thinking_token_budget
    if max_tokens is not None and min_tokens > max_tokens:
        raise InvalidParam(f"'min_tokens' is {min_tokens}, more than the {max_tokens} of max_tokens; lower it.", param="min_tokens")
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
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        grammar=grammar_of(request),
        prediction=(request.prediction and request.prediction.text) or None,
        thinking_budget=None if budget == -1 else budget,
    )
