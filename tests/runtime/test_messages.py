"""Every message crosses the wire as it is, whatever its optional parts hold."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol.errors import BY_KIND, FailureKind
from runtime.protocol.events import Chunk, Failed, Finished, FinishReason, Started, Timings, Usage
from runtime.protocol.messages import (
    Abort,
    Detokenize,
    Detokenized,
    Drain,
    EngineOptions,
    FromWorker,
    Load,
    LoadFailed,
    StepReport,
    Submit,
    Tokenize,
    Tokenized,
    ToWorker,
)
from runtime.protocol.request import ChatPrompt, SamplingParams, TextPrompt, TokensPrompt

TO_WORKER = [
    Load(engine="fake", folder="", options=EngineOptions(num_slots=2, kv_budget_bytes=5)),
    Submit(request=1, prompt=TextPrompt(text="a\u20ac\0")),
    Submit(request=2, prompt=TokensPrompt(token_ids=[1, 2]), params=SamplingParams(logit_bias={3: -1.5}, stop=("x", "y"))),
    Submit(request=3, prompt=ChatPrompt(messages=[{"role": "user", "content": [{"type": "text"}]}], tools=[{}]), deadline_s=0.5),
    Tokenize(request=4, prompt=TextPrompt(text="a\u20ac\0")),
    Detokenize(request=5, token_ids=[0, 1 << 30]),
    Abort(request=1 << 40),
    Drain(),
]
FROM_WORKER = [
    LoadFailed(message="no"),
    Tokenized(request=4, token_ids=[7], tokens=[b"\xe2\x82"], context_length=8),
    Detokenized(request=5, text="a\u20ac"),
    StepReport(),
    StepReport(
        started=[Started(request=1, prompt_tokens=3, cached_tokens=0, prompt_text="abc")],
        chunks=[Chunk(1, "text", [1, 2])],
        finished=[
            Finished(
                request=1,
                reason=FinishReason.STOP,
                usage=Usage(prompt_tokens=3, completion_tokens=2),
                timings=Timings(queue_s=0.1, prefill_s=0.2, decode_s=0.3),
                stop=7,
            )
        ],
        failed=[Failed(request=2, kind=FailureKind.NOT_READY, message="later", retry_after_s=1.0)],
    ),
]


@pytest.mark.parametrize("message", TO_WORKER, ids=lambda m: type(m).__name__)
def test_what_is_sent_to_a_worker_arrives(message: ToWorker) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=ToWorker) == message


@pytest.mark.parametrize("message", FROM_WORKER, ids=lambda m: type(m).__name__)
def test_what_a_worker_sends_arrives(message: FromWorker) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=FromWorker) == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(max_size=4), json_values, max_size=3), max_size=3))
def test_a_chat_of_any_json_arrives(messages: list[dict[str, Any]]) -> None:
    submit = Submit(request=1, prompt=ChatPrompt(messages=messages))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(submit), type=ToWorker) == submit


def test_a_message_of_neither_side_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(LoadFailed(message="no")), type=ToWorker)


def test_every_failure_kind_has_its_exception() -> None:
    assert set(BY_KIND) == set(FailureKind)
    assert all(cls.kind is kind for kind, cls in BY_KIND.items())
