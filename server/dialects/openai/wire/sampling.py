"""The fields that chat and completion requests share: model, sampling, stop, streaming, predicted outputs; with their ranges."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from server.dialects.openai.wire.messages import Content
from server.dialects.openai.wire.structured_output import Choices, JsonSchema, Pattern, ResponseFormat, StructuredOutputs
from server.http.body_errors import FAIL_FAST, at_most
from server.settings.units import KeepAlive, keep_alive_s


class Prediction(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)

    type: Literal["content"] = Field(description="Always content.")
    content: Content = Field(description="The text, or parts of the type text.")

    @property
    def text(self) -> str:
        """Parts without anything between them."""
        return "".join(part.content_text for part in self.content or ())


_MAX_STOPS = 16
_MAX_STOP_CHARS = 1024
_MAX_BIASES = 1024
_MAX_STOP_TOKENS = 1024
_INT32 = 2**31 - 1
MAX_CHOICES = 128
MAX_LOGPROBS = 20


def _texts(value: object) -> object:
    """One text or a list of texts, as a list."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    raise ValueError("must be a text or a list of texts")


_TEXT_SCHEMA = {"type": "string", "minLength": 1, "maxLength": _MAX_STOP_CHARS}
_TEXTS_SCHEMA = {"anyOf": [_TEXT_SCHEMA, {"type": "array", "items": _TEXT_SCHEMA, "maxItems": _MAX_STOPS}, {"type": "null"}]}
_BIASES_SCHEMA = {
    "type": "object",
    "propertyNames": {"pattern": "^[0-9]{1,9}$"},
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
    "maxProperties": _MAX_BIASES,
}
Biases = Annotated[dict[str, float], at_most(_MAX_BIASES), WithJsonSchema(_BIASES_SCHEMA)]
StopTexts = Annotated[list[str], BeforeValidator(_texts), at_most(_MAX_STOPS), WithJsonSchema(_TEXTS_SCHEMA)]
Flag = bool | None
TokenIds = Annotated[
    list[Annotated[int, Field(ge=0, le=_INT32)]], FAIL_FAST, at_most(_MAX_STOP_TOKENS), Field(max_length=_MAX_STOP_TOKENS)
]


def _tier(value: object) -> object:
    if value in (None, "auto", "default"):
        return value
    raise PydanticCustomError("unsupported", "there is one tier: send auto or default, or leave it out")


ServiceTier = Annotated[str | None, BeforeValidator(_tier), WithJsonSchema({"enum": ["auto", "default", None]})]


class UsageReporting(Enum):
    """Where a stream reports usage.

    NEVER; LAST: in a last chunk; ALWAYS: in every chunk, for its choice so far, and in the last.
    """

    NEVER = "never"
    LAST = "last"
    ALWAYS = "always"


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    include_usage: Flag = Field(None, description="Send the usage in a last chunk.")
    continuous_usage_stats: Flag = Field(None, description="With include_usage: each chunk has its choice's usage so far.")


class SamplingFields(BaseModel):
    """Null means the same as absent, everywhere. Fields not named here are accepted, or refused by `refusals`."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    model: str | None = Field(None, max_length=256, description="The default model when absent or empty.")
    stream: Flag = Field(None, description="Answer by server-sent events.")
    stream_options: StreamOptions | None = Field(None, description="What a stream contains beside the answer.")
    n: int | None = Field(None, ge=1, le=MAX_CHOICES, description="Choices per prompt.")
    max_tokens: int | None = Field(None, ge=1, le=_INT32, description="Most tokens of an answer.")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is exact greedy.")
    top_p: float | None = Field(None, gt=0, le=1, description="Sample among the likeliest tokens of this much probability.")
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="Against tokens that the answer has.")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="Against tokens by how often the answer has them.")
    logit_bias: Biases | None = Field(None, description="Token id to a bias from -100 to 100.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**64, description="Repeats the answer; choice i of a prompt takes seed + i.")
    stop: StopTexts = Field(default_factory=list, description="Up to 16 texts that end the answer.")
    response_format: ResponseFormat | None = Field(None, description="The form of the answer: text, a JSON object, a schema.")
    service_tier: ServiceTier = Field(None, description="There is one tier; answered as default.")
    user: Any = Field(None, description="Accepted, without effect.")

    top_k: int | None = Field(None, ge=-1, le=_INT32, description="0 or -1: off.")
    min_p: float | None = Field(None, ge=0, le=1, description="Least probability, as a share of the likeliest token's.")
    typical_p: float | None = Field(None, gt=0, le=1, description="Sample among tokens of typical information.")
    repetition_penalty: float | None = Field(None, ge=0.01, le=100, description="1: off.")
    min_tokens: int | None = Field(None, ge=0, le=_INT32, description="No end before so many tokens.")
    stop_token_ids: TokenIds | None = Field(None, description="Up to 1024 tokens that end the answer.")
    include_stop_str_in_output: Flag = Field(None, description="Keep the stop text that ended the answer.")
    ignore_eos: Flag = Field(None, description="Go on after the model's end of text.")
    skip_special_tokens: Flag = Field(None, description="Leave special tokens out of the text; true by default.")
    prompt_logprobs: int | None = Field(
        None, ge=0, le=MAX_LOGPROBS, description="Log probabilities of the prompt's tokens, with so many alternatives."
    )
    prediction: Prediction | None = Field(None, description="What the answer will mostly repeat; it comes faster, and the same.")
    return_token_ids: Flag = Field(None, description="Answer prompt_token_ids and token_ids too.")
    structured_outputs: StructuredOutputs | None = Field(None, description="The form of the answer; exactly one of its fields.")
    guided_json: JsonSchema | None = Field(None, description="Older name of structured_outputs.json.")
    guided_regex: Pattern | None = Field(None, description="Older name of structured_outputs.regex.")
    guided_choice: Choices | None = Field(None, description="Older name of structured_outputs.choice.")
    guided_grammar: Pattern | None = Field(None, description="Older name of structured_outputs.grammar.")
    thinking_token_budget: int | None = Field(
        None, ge=-1, le=_INT32, description="Tokens of a thought, after which it is closed; -1: no limit."
    )
    priority: int | None = Field(None, ge=-_INT32, le=_INT32, description="Lower runs earlier.")
    keep_alive: KeepAlive | None = Field(None, description="How long the model stays loaded; -1: for ever.")

    @field_validator("stop")
    @classmethod
    def _sound_stops(cls, stops: list[str]) -> list[str]:
        if any(not 0 < len(stop) <= _MAX_STOP_CHARS for stop in stops):
            raise ValueError(f"has a text that is empty or longer than {_MAX_STOP_CHARS} characters")
        return stops

    @field_validator("logit_bias")
    @classmethod
    def _sound_biases(cls, biases: dict[str, float] | None) -> dict[str, float] | None:
        if biases is None:
            return None
        for token, bias in biases.items():
            if not (token.isascii() and token.isdigit() and len(token) < 10):
                raise ValueError('has a key that is not a token id; keys are ids as text, such as "50256"')
            if not -100 <= bias <= 100:
                raise ValueError(f"has the bias {bias} for token {token}; biases lie between -100 and 100")
        return biases

    @property
    def keep_alive_s(self) -> float | None:
        return None if self.keep_alive is None else keep_alive_s(self.keep_alive)

    @property
    def unknown(self) -> dict[str, Any]:
        """The fields that this class does not name."""
        return self.model_extra or {}

    @property
    def num_choices(self) -> int:
        """Per prompt."""
        return self.n or 1

    @property
    def usage_reporting(self) -> UsageReporting:
        """Where a stream reports its usage."""
        options = self.stream_options
        if options is None or not options.include_usage:
            return UsageReporting.NEVER
        return UsageReporting.ALWAYS if options.continuous_usage_stats else UsageReporting.LAST
