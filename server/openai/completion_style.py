"""How a client of completions wants its answers told."""

from __future__ import annotations

from dataclasses import dataclass

from server.openai.wire.completions import CompletionRequest
from server.openai.wire.sampling import UsageWish


@dataclass(frozen=True, slots=True)
class CompletionStyle:
    """num_choices: per prompt, of those generated. with_prompt_logprobs: vLLM's, beside those of an echo. usage: of streams."""

    num_choices: int = 1
    num_generated: int = 1
    with_logprobs: bool = False
    with_prompt_logprobs: bool = False
    with_token_ids: bool = False
    usage: UsageWish = UsageWish.NEVER

    @classmethod
    def of(cls, request: CompletionRequest) -> CompletionStyle:
        return cls(
            num_choices=request.n or 1,
            num_generated=request.num_choices,
            with_logprobs=request.logprobs is not None,
            with_prompt_logprobs=request.prompt_logprobs is not None,
            with_token_ids=bool(request.return_token_ids),
            usage=request.usage_wish,
        )
