"""What one request calls its parts, where OpenAI's API has more than one name for them: errors use the one that the request has."""

from __future__ import annotations

from runtime.protocol.errors import Field
from server.dialects.openai.errors import FIELD_NAMES, FieldNames
from server.dialects.openai.structured_output import form_param
from server.dialects.openai.wire.chat import ChatRequest
from server.dialects.openai.wire.sampling import SamplingFields


def names_in(request: SamplingFields) -> FieldNames:
    """Pure, and cheap: it is made for every request."""
    names: dict[str, str] = {Field.FORM: form_param(request)}
    if isinstance(request, ChatRequest):
        if request.functions:
            names |= {Field.TOOLS: "functions", Field.TOOL_CHOICE: "function_call"}
        if request.max_completion_tokens is not None:
            names[Field.MAX_TOKENS] = "max_completion_tokens"
    return {**FIELD_NAMES, **names}
