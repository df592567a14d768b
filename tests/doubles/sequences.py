"""Sequences made by hand, for tests of what works on them: no tokenizer, no template, no engine."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

from runtime.batching.sequence import ResolvedParams, Sequence
from runtime.protocol.request import SamplingParams
from runtime.text.stream import StopMatcher, TextStream

_numbers = itertools.count(1)


def resolved(requested: SamplingParams, *, max_tokens: int = 16) -> ResolvedParams:
    """The requested value, else the neutral one."""

    def given(value: float | None, neutral: float) -> float:
        return neutral if value is None else value

    return ResolvedParams(
        temperature=given(requested.temperature, 1.0),
        top_k=max(0, requested.top_k or 0),
        top_p=given(requested.top_p, 1.0),
        min_p=given(requested.min_p, 0.0),
        typical_p=given(requested.typical_p, 1.0),
        repetition_penalty=given(requested.repetition_penalty, 1.0),
        max_tokens=requested.max_tokens or max_tokens,
        requested=requested,
    )


def make_sequence(
    prompt: Iterable[int] = range(8),
    requested: SamplingParams | None = None,
    *,
    generated: Iterable[int] = (),
    request: int | None = None,
    max_tokens: int = 16,
    priority: int = 0,
    principal: str = "",
    group: int | None = None,
) -> Sequence:
    requested = requested or SamplingParams()
    ids = list(prompt)
    params = resolved(requested, max_tokens=max_tokens)
    tokens = np.zeros(len(ids) + params.max_tokens, np.int32)
    tokens[: len(ids)] = ids
    sequence = Sequence(
        request=next(_numbers) if request is None else request,
        params=params,
        tokens=tokens,
        prompt_len=len(ids),
        num_tokens=len(ids),
        text=TextStream(lambda token: bytes([token % 256])),
        stop=StopMatcher(requested.stop, include=requested.include_stop_str_in_output),
        rng=np.random.Generator(np.random.Philox(requested.seed or 0)),
        priority=priority,
        arrived_at=0.0,
        deadline_at=None,
        principal=principal,
        group=group,
    )
    for token in generated:
        sequence.append(token)
    return sequence
