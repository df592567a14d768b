"""The wire shapes of `/tokenize` and `/detokenize` (vLLM's, and llama-server's `content`), and of the count of a chat's tokens."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, WrapValidator

from server.dialects.openai.errors import InvalidParam
from server.dialects.openai.wire.chat import ChatRequest
from server.dialects.openai.wire.sampling import Flag
from server.http.body_errors import FAIL_FAST
from server.settings.units import KeepAlive, keep_alive_s


class TokensFields(BaseModel):
    """The fields of every request about tokens. Null means the same as absent, as everywhere."""

    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)

    model: str | None = Field(None, max_length=256, description="The default model when absent or empty.")
    keep_alive: KeepAlive | None = Field(None, description="How long the model stays loaded after this request.")

    @property
    def keep_alive_s(self) -> float | None:
        return None if self.keep_alive is None else keep_alive_s(self.keep_alive)


class TokenizeText(TokensFields):
    """vLLM's request for a text."""

    prompt: str = Field(description="The text; the name that vLLM gives it.")
    add_special_tokens: Flag = Field(None, description="Whether the text gets the tokenizer's special tokens; true by default.")
    return_token_strs: Flag = Field(None, description="Answer with the text of each token too.")


class TokenizeContent(TokensFields):
    """llama-server's request."""

    content: str = Field(description="The text; the name that llama-server gives it.")
    add_special: Flag = Field(None, description="Whether the text gets the tokenizer's special tokens; false by default.")
    with_pieces: Flag = Field(None, description="Answer with the text of each token beside its id.")
    parse_special: Literal[True] | None = Field(None, description="Special tokens are always read as such.")


class TokenizeChat(ChatRequest):
    """vLLM's request for a conversation: any request to /v1/chat/completions, with its tools."""

    return_token_strs: Flag = Field(None, description="Answer with the text of each token too.")


_REQUESTS: dict[str, type[TokenizeText | TokenizeContent | TokenizeChat]] = {
    "prompt": TokenizeText,
    "content": TokenizeContent,
    "messages": TokenizeChat,
}


def _meant(value: object, _: ValidatorFunctionWrapHandler) -> TokenizeText | TokenizeContent | TokenizeChat:
    """Selects the shape by its field, so that errors refer to the shape that was meant."""
    fields = [name for name in _REQUESTS if isinstance(value, dict) and value.get(name) is not None]
    if len(fields) > 1:
        raise InvalidParam(f"{fields[0]!r} and {fields[1]!r} exclude each other: send one of them.", param=fields[1])
    return _REQUESTS[fields[0] if fields else "prompt"].model_validate(value)


TokenizeRequest = Annotated[TokenizeText | TokenizeContent | TokenizeChat, WrapValidator(_meant)]


class Tokenization(BaseModel):
    """count: of the tokens. max_model_len: tokens that prompt and answer may have together.

    token_strs: only if requested; bytes that are no whole character are U+FFFD.
    """

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class Piece(BaseModel):
    """A token and its text; its bytes, where they are no whole characters."""

    id: int
    piece: str | list[int]


class Pieces(BaseModel):
    """The answer of llama-server. tokens: ids, or pieces if requested."""

    tokens: list[int] | list[Piece]


_TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]


class DetokenizeRequest(TokensFields):
    """vLLM's request."""

    tokens: Annotated[list[_TokenId], FAIL_FAST] = Field(description="Ids from the model's vocabulary.")


class Detokenization(BaseModel):
    """prompt: the text, special tokens written out; bytes that are no whole character are U+FFFD."""

    prompt: str


class InputTokens(BaseModel):
    """input_tokens: what `usage.prompt_tokens` of an answer to the same request would be."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int
