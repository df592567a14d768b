"""What can go wrong with a request or a model, in five kinds. `server/http/errors.py` maps each kind to a status, once.

RuntimeFailure
├── InvalidRequest     the caller must change something          400
├── OverCapacity       queue full: retry later                   429 + Retry-After
├── NotReady           loading, draining or could not load       503 + Retry-After
├── StepFailed         this request failed; it may be retried    500
└── EngineDead         the worker is gone and will be restarted  503
"""

from __future__ import annotations

from enum import StrEnum, auto


class FailureKind(StrEnum):
    """The wire form of the exception classes below, as a worker reports them."""

    INVALID_REQUEST = "invalid_request"
    OVER_CAPACITY = "over_capacity"
    NOT_READY = "not_ready"
    STEP_FAILED = "step_failed"
    ENGINE_DEAD = "engine_dead"


class Field(StrEnum):
    """The part of a request that a failure is about, in no client's words: each dialect has a table of what it calls them.

    What `SamplingParams` has goes by its names. A message names a part by `quoted`, so that a dialect can put its own word there.
    """

    MODEL = auto()
    CONVERSATION = auto()
    PROMPT = auto()
    TOKEN_IDS = auto()
    NUM_CHOICES = auto()
    TOOLS = auto()
    TOOL_CHOICE = auto()
    REASONING_EFFORT = auto()
    CONTINUATION = auto()  # of a conversation's last message
    FORM = auto()  # what the answer must look like: `SamplingParams.grammar`
    TEMPERATURE = auto()
    TOP_K = auto()
    TOP_P = auto()
    MIN_P = auto()
    TYPICAL_P = auto()
    REPETITION_PENALTY = auto()
    PRESENCE_PENALTY = auto()
    FREQUENCY_PENALTY = auto()
    LOGIT_BIAS = auto()
    SEED = auto()
    MAX_TOKENS = auto()
    MIN_TOKENS = auto()
    STOP = auto()
    STOP_TOKEN_IDS = auto()
    INCLUDE_STOP_STR_IN_OUTPUT = auto()
    IGNORE_EOS = auto()
    SKIP_SPECIAL_TOKENS = auto()
    LOGPROBS = auto()
    PROMPT_LOGPROBS = auto()
    PREDICTION = auto()
    THINKING_BUDGET = auto()

    @property
    def quoted(self) -> str:
        """As messages write it: `name`, in backticks."""
        return f"`{self.value}`"


class RuntimeFailure(Exception):
    """The root. message: what was wrong and what to do; field: the part of the request at fault; code: for programs.

    retry_after_s: seconds after which to retry; 0 when retrying is useless, None when unknown.
    """

    kind: FailureKind

    def __init__(
        self, message: str, *, field: Field | None = None, code: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.code = code
        self.retry_after_s = retry_after_s


class InvalidRequest(RuntimeFailure):
    kind = FailureKind.INVALID_REQUEST


class OverCapacity(RuntimeFailure):
    kind = FailureKind.OVER_CAPACITY


class NotReady(RuntimeFailure):
    kind = FailureKind.NOT_READY


class StepFailed(RuntimeFailure):
    kind = FailureKind.STEP_FAILED


class EngineDead(RuntimeFailure):
    kind = FailureKind.ENGINE_DEAD


BY_KIND: dict[FailureKind, type[RuntimeFailure]] = {
    cls.kind: cls for cls in (InvalidRequest, OverCapacity, NotReady, StepFailed, EngineDead)
}
