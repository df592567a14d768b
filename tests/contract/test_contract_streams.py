"""Streams keep their form at every edge: an error status, or events that each fit the chunk's schema, up to [DONE] or an error."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from server.dialects.openai.wire.chat import ChatChunk
from server.dialects.openai.wire.completions import Completion
from tests.contract.conversation import CHAT, COMPLETIONS, events_of, plain, post, post_values, why_wrong
from tests.contract.document import Parameter, parameters_of, read_document
from tests.contract.edges import small_edges_of

DOCUMENT = read_document()
PARAMETERS = [parameter for path in (CHAT, COMPLETIONS) for parameter in parameters_of(DOCUMENT, path)]
CHUNKS: dict[str, type[BaseModel]] = {CHAT: ChatChunk, COMPLETIONS: Completion}


def chunks_of(response: httpx.Response, path: str) -> list[dict[str, Any]]:
    """The chunks of a whole stream, each as its schema has it: nothing more, and nothing null that would be absent."""
    *events, last = events_of(response)
    if last != "[DONE]":
        error = json.loads(last)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] != "internal_error", error
    for event in events:
        reported = CHUNKS[path].model_validate_json(event).model_dump_json(exclude_unset=True)
        assert json.loads(reported) == json.loads(event)
    chunks = [json.loads(event) for event in events]
    if last == "[DONE]":
        _check_ends(chunks)
    return chunks


def _check_ends(chunks: list[dict[str, Any]]) -> None:
    """One answer under one id, whose choices each end once, with their last chunk."""
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    ended: set[int] = set()
    begun: set[int] = set()
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        assert choice["index"] not in ended, "a choice goes on after its end"
        begun.add(choice["index"])
        if choice["finish_reason"] is not None:
            ended.add(choice["index"])
    assert begun == ended == set(range(len(ended))), f"begun: {begun}, ended: {ended}"
    assert ended


@pytest.mark.parametrize("parameter", PARAMETERS, ids=str)
def test_edges(http: httpx.Client, parameter: Parameter, cases: Counter[str]) -> None:
    wrong = []
    for text in small_edges_of(parameter.schema, DOCUMENT):
        response = post(http, parameter.path, plain(parameter.path) | {"stream": "true", parameter.name: text})
        cases[f"edges of one parameter of a stream, answered {response.status_code}"] += 1
        problem = why_wrong(response, [parameter.name])
        wrong += [f"{text}: {problem}"] if problem else []
        if response.headers["content-type"].startswith("text/event-stream"):
            chunks_of(response, parameter.path)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"n": 3}),
        (CHAT, {"stream_options": {"include_usage": True}}),
        (CHAT, {"logprobs": True, "top_logprobs": 20}),
        (CHAT, {"n": 2, "logprobs": True, "return_token_ids": True, "stream_options": {"include_usage": True}}),
        (CHAT, {"messages": [{"role": "user", "content": "[[reply: שלום 👩‍👩‍👧‍👦 e\u0301\u0301]]"}], "max_tokens": 60}),
        (CHAT, {"messages": [{"role": "user", "content": '[[reply: "\\n\\ndata: [DONE]\\n\\n]]'}], "max_tokens": 60}),
        (CHAT, {"stop": ["said"], "max_tokens": 30}),
        (COMPLETIONS, {"n": 3, "prompt": ["a", "b"]}),
        (COMPLETIONS, {"logprobs": 20, "echo": True}),
        (COMPLETIONS, {"max_tokens": 0, "echo": True}),
        (COMPLETIONS, {"prompt": [0, 255, 258], "echo": True, "return_token_ids": True}),
        (COMPLETIONS, {"prompt": "hi", "stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
    ],
    ids=str,
)
def test_streams_of_every_kind(http: httpx.Client, path: str, fields: dict[str, Any], cases: Counter[str]) -> None:
    """And a stream has the same content as the whole answer."""
    fields = {"temperature": 0, **fields}
    streamed = chunks_of(post_values(http, path, {**fields, "stream": True}), path)
    cases["streams of every kind"] += 1
    whole = post_values(http, path, {name: value for name, value in fields.items() if name != "stream_options"})
    assert whole.status_code == 200, whole.text
    for expected in whole.json()["choices"]:
        choices = [choice for chunk in streamed for choice in chunk["choices"] if choice["index"] == expected["index"]]
        text: str = expected["message"]["content"] if path == CHAT else expected["text"]
        assert "".join(_text(choice) for choice in choices) == text
        assert choices[-1]["finish_reason"] == expected["finish_reason"]


def _text(choice: dict[str, Any]) -> str:
    text: str = choice["delta"].get("content", "") if "delta" in choice else choice["text"]
    return text
