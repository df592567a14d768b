"""How a chat client wants its answers told: which of its parts, in the newer or the older form."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.events import Finished, FinishReason
from server.openai.wire import chat_answer
from server.openai.wire.chat import ChatRequest
from server.openai.wire.sampling import UsageWish


@dataclass(frozen=True, slots=True)
class ChatStyle:
    """legacy_calls: calls as `function_call`. usage: of streams."""

    num_choices: int = 1
    with_reasoning: bool = True
    with_logprobs: bool = False
    with_token_ids: bool = False
    legacy_calls: bool = False
    usage: UsageWish = UsageWish.NEVER

    @classmethod
    def of(cls, request: ChatRequest) -> ChatStyle:
        return cls(
            num_choices=request.num_choices,
            with_reasoning=request.include_reasoning is not False,
            with_logprobs=bool(request.logprobs),
            with_token_ids=bool(request.return_token_ids),
            legacy_calls=bool(request.functions),
            usage=request.usage_wish,
        )


def finish_reason(finished: Finished, has_calls: bool, style: ChatStyle) -> chat_answer.FinishReason:
    """An answer that ended by itself and calls something ends for its calls; one that was cut, also by a stop text, was cut."""
    if finished.reason is FinishReason.STOP and finished.stop is None and has_calls:
        return "function_call" if style.legacy_calls else "tool_calls"
    return finished.reason.value
