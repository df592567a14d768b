"""Errors as OpenAI's own client raises them, and what it reads of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.clients.conversations import MODEL, QUESTION, user
from tests.doubles.daemon_process import daemon_process


def test_models_are_listed_and_described(client: openai.OpenAI) -> None:
    (listed,) = client.models.list().data
    described = client.models.retrieve(MODEL)
    assert listed == described
    assert (described.id, described.object, described.owned_by) == (MODEL, "model", "slmops")
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("nobody")
    assert missing.value.code == "model_not_found"


def test_the_default_model_answers_when_none_is_named(http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", json={"messages": user(QUESTION), "max_tokens": 1})
    assert (answer.status_code, answer.json()["model"]) == (200, MODEL)


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="slmops catalog") as missing:
        client.chat.completions.create(model="nobody", messages=user(QUESTION))
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1),
        ("top_p", 0),
        ("max_tokens", -1),
        ("max_tokens", 0),
        ("frequency_penalty", 3),
        ("n", 0),
        ("logit_bias", {"10000000": 1}),
    ],
)
def test_a_bad_field_is_a_bad_request_that_names_it(client: openai.OpenAI, field: str, value: Any) -> None:
    fields: dict[str, Any] = {field: value}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=MODEL, messages=user(QUESTION), **fields)
    assert refused.value.param == field
    assert field in str(refused.value.body)


def test_a_wrong_path_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="/v1/vector_stores"):
        client.vector_stores.list()


def test_what_is_not_served_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="Embeddings are not computed here yet") as unavailable:
        client.embeddings.create(model=MODEL, input="x", encoding_format="float")
    assert unavailable.value.status_code == 501


def test_a_full_queue_is_a_rate_limit_that_the_client_waits_out(tmp_path: Path) -> None:
    """One slot and one place to wait, both taken for a second: the third request is refused with a Retry-After, and succeeds with
    retries.
    """
    with (
        daemon_process(tmp_path, "--num-slots", "1", "--max-waiting", "1", "--shutdown-grace-s", "0") as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=30) as client,
    ):
        prompts = ["<|user|>[[count: 30]][[delay: 0.01]]<|assistant|>"] * 2
        with client.completions.create(model=MODEL, prompt=prompts, max_tokens=1000, stream=True) as stream:
            next(stream)
            with pytest.raises(openai.RateLimitError, match="queue is full") as shed:
                client.chat.completions.create(model=MODEL, messages=user("me too"))
            assert int(shed.value.response.headers["retry-after"]) >= 1
            patient = client.with_options(max_retries=10).chat.completions.create(model=MODEL, messages=user("me too"))
            assert patient.choices[0].message.content == "You said: me too"
            assert {chunk.choices[0].finish_reason for chunk in stream} == {None, "stop"}
