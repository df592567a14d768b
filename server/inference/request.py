"""The one internal request that every dialect translates to, and what it may ask of a model at once. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec import structs
from msgspec.msgpack import encode

from runtime.protocol.errors import Field, InvalidRequest
from runtime.protocol.request import Prompt, SamplingParams

MAX_COPIED_BYTES = 32 << 20  # 128 choices of 256 KiB


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """num_choices answers to each prompt, all with the same parameters but for the seed.

    Choices are numbered prompt by prompt. A seed is that of a prompt's first choice; the next take the numbers after it.
    keep_alive_s: how long the model stays loaded after this request and those to come; None changes nothing.
    """

    prompts: Sequence[Prompt]
    params: SamplingParams
    priority: int = 0
    num_choices: int = 1
    return_prompt_text: bool = False
    return_prompt_token_ids: bool = False
    keep_alive_s: float | None = None

    @property
    def num_sequences(self) -> int:
        return len(self.prompts) * self.num_choices

    def submissions(self) -> Iterator[tuple[Prompt, SamplingParams]]:
        """One per choice, in order."""
        for prompt in self.prompts:
            for index in range(self.num_choices):
                yield prompt, self._params_of(index)

    def _params_of(self, index: int) -> SamplingParams:
        if self.params.seed is None or index == 0:
            return self.params
        return structs.replace(self.params, seed=(self.params.seed + index) % 2**64)


def check_size(request: InferenceRequest, capacity: int) -> None:
    """capacity: sequences that the model takes at once, running and waiting. Raises InvalidRequest."""
    if request.num_choices > 1:
        _check_copies(request)
    if request.num_sequences > capacity:
        is_one_each = request.num_choices == 1
        requested = f"{len(request.prompts)} prompts" if is_one_each else f"{request.num_sequences} choices"
        message = f"{requested} are more than the {capacity} that fit; request fewer."
        raise InvalidRequest(message, field=Field.PROMPT if is_one_each else Field.NUM_CHOICES)


def _check_copies(request: InferenceRequest) -> None:
    """Each choice sends its prompt to the worker. Raises InvalidRequest."""
    num_bytes = len(encode(request.prompts)) * request.num_choices
    if num_bytes > MAX_COPIED_BYTES:
        size = f"{request.num_choices} choices of this prompt are {num_bytes} bytes, more than the {MAX_COPIED_BYTES} possible"
        raise InvalidRequest(f"{size}; request fewer choices, or send less text.", field=Field.NUM_CHOICES)
