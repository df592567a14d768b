"""The wire shape of a request to `/v1/chat/completions`. Shapes and ranges only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from server.dialects.openai.wire.messages import Messages
from server.dialects.openai.wire.sampling import MAX_LOGPROBS, Flag, SamplingFields
from server.dialects.openai.wire.tools import ToolFields
from server.http.body_errors import at_most

MetadataKey = Annotated[str, Field(max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], at_most(16), Field(max_length=16)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ChatRequest(ToolFields, SamplingFields):
    """OpenAI's request, with vLLM's extra fields."""

    messages: Messages
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1, description="Wins over max_tokens.")
    logprobs: Flag = Field(None, description="Answer the log probability of each token.")
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS, description="With logprobs: so many alternatives of each.")
    reasoning_effort: Effort | None = Field(None, description="Of models that reason; none: no thought.")
    include_reasoning: Flag = Field(None, description="Answer the text of the thought; true by default.")
    metadata: Metadata | None = Field(None, description="Accepted, without effect.")
    safety_identifier: str | None = Field(None, description="Accepted, without effect.")
    prompt_cache_key: str | None = Field(None, description="Accepted, without effect: equal beginnings are always reused.")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="Variables for the chat template.")
    add_generation_prompt: Flag = Field(None, description="End the prompt with the beginning of an answer; true by default.")
    continue_final_message: Flag = Field(None, description="Go on with the last message instead of answering it.")
