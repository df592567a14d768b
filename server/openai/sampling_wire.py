"""The fields that chat and completion requests share: which model, how to sample, when to stop; with their ranges."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator

from server.durations import KeepAlive, keep_alive_s

_MAX_STOPS = 16
_MAX_STOP_CHARS = 1024
_MAX_BIASES = 1024
_INT32 = 2**31 - 1


def _texts(value: object) -> object:
    """One text or a list of texts, as a list."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    raise ValueError("must be a text or a list of texts")


_TEXTS_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
StopTexts = Annotated[list[str], BeforeValidator(_texts), WithJsonSchema(_TEXTS_SCHEMA)]
Flag = bool | None
TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=_INT32)]], Field(max_length=1024)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    include_usage: Flag = Field(None, description="Send the usage in a last chunk.")


class SamplingFields(BaseModel):
    """Null means the same as absent, everywhere. Fields not named here are accepted, or refused by `refusals`."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    model: str | None = Field(None, max_length=256, description="The default model when absent or empty.")
    stream: Flag = Field(None, description="Answer by server-sent events.")
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=_INT32)
    temperature: float | None = Field(None, ge=0, le=2, description="0 is exact greedy.")
    top_p: float | None = Field(None, gt=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = Field(None, description="Token id to a bias from -100 to 100.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    stop: StopTexts = Field(default_factory=list, description="Up to 16 texts that end the answer.")
    user: Any = Field(None, description="Accepted, without effect.")

    top_k: int | None = Field(None, ge=-1, le=_INT32, description="0 or -1: off.")
    min_p: float | None = Field(None, ge=0, le=1)
    typical_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100, description="1: off.")
    min_tokens: int | None = Field(None, ge=0, le=_INT32)
    stop_token_ids: TokenIds | None = None
    include_stop_str_in_output: Flag = None
    ignore_eos: Flag = None
    skip_special_tokens: Flag = None
    priority: int | None = Field(None, ge=-_INT32, le=_INT32, description="Lower runs earlier.")
    keep_alive: KeepAlive | None = None

    @field_validator("stop")
    @classmethod
    def _sound_stops(cls, stops: list[str]) -> list[str]:
        if len(stops) > _MAX_STOPS:
            raise ValueError(f"has {len(stops)} texts; at most {_MAX_STOPS} are possible")
        if any(not 0 < len(stop) <= _MAX_STOP_CHARS for stop in stops):
            raise ValueError(f"has a text that is empty or longer than {_MAX_STOP_CHARS} characters")
        return stops

    @field_validator("logit_bias")
    @classmethod
    def _sound_biases(cls, biases: dict[str, float] | None) -> dict[str, float] | None:
        if biases is None:
            return None
        if len(biases) > _MAX_BIASES:
            raise ValueError(f"has {len(biases)} entries; at most {_MAX_BIASES} are possible")
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
    def wants_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)
