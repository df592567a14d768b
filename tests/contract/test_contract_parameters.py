"""Every parameter at its edges: the answer is 200, or a refusal that names the parameter; never 5xx, and nothing hangs.

The parameters and their limits are read from the server's own OpenAPI document, so that a new one is tested when it is there.
"""

from __future__ import annotations

import json
from collections import Counter

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.conversation import CHAT, COMPLETIONS, DETOKENIZE, INPUT_TOKENS, TOKENIZE, assert_lives, plain, post, why_wrong
from tests.contract.document import Parameter, parameters_of, read_document
from tests.contract.edges import edges_of, small_edges_of
from tests.effort import drawn

DOCUMENT = read_document()
OF_ANSWERS = [parameter for path in (CHAT, COMPLETIONS) for parameter in parameters_of(DOCUMENT, path)]
OF_TOKENS = [  # but for what is the same in a chat
    parameter
    for path in (INPUT_TOKENS, TOKENIZE, DETOKENIZE)
    for parameter in parameters_of(DOCUMENT, path)
    if (parameter.name, parameter.schema) not in [(each.name, each.schema) for each in OF_ANSWERS]
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ANYTHING = st.recursive(st.none() | st.booleans() | NUMBERS | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner))
DRAWN = settings(drawn(20), suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("parameter", [*OF_ANSWERS, *OF_TOKENS], ids=str)
def test_edges(http: httpx.Client, parameter: Parameter, cases: Counter[str]) -> None:
    wrong = []
    for edge in edges_of(parameter.schema, DOCUMENT):
        response = post(http, parameter.path, plain(parameter.path, parameter.required) | {parameter.name: edge.text})
        cases[f"edges of one parameter, answered {response.status_code}"] += 1
        missing = plain(parameter.path) if edge.text == "null" else ()  # null means absent
        problem = why_wrong(response, [parameter.name, *missing], is_json=edge.is_json)
        wrong += [f"{edge.label}: {problem}"] if problem else []
    assert not wrong, "\n".join(wrong)
    assert_lives(http)


@pytest.mark.parametrize("parameter", OF_ANSWERS, ids=str)
@DRAWN
@given(value=ANYTHING)
def test_any_value(http: httpx.Client, parameter: Parameter, cases: Counter[str], value: object) -> None:
    response = post(http, parameter.path, plain(parameter.path, parameter.required) | {parameter.name: json.dumps(value)})
    cases[f"any value of one parameter, answered {response.status_code}"] += 1
    assert why_wrong(response, [parameter.name]) is None


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@settings(DRAWN, max_examples=drawn(300).max_examples)
@given(data=st.data())
def test_parameters_together(http: httpx.Client, path: str, cases: Counter[str], data: st.DataObject) -> None:
    """Values that are each sound, or nearly: what contradicts itself is refused by one of the names, and nothing breaks."""
    parameters = [parameter for parameter in OF_ANSWERS if parameter.path == path and parameter.name != "model"]
    chosen = data.draw(st.lists(st.sampled_from(parameters), min_size=2, max_size=6, unique_by=lambda each: each.name))
    fields = {each.name: data.draw(st.sampled_from(small_edges_of(each.schema, DOCUMENT))) for each in chosen}
    response = post(http, path, plain(path) | fields)
    cases[f"parameters together, answered {response.status_code}"] += 1
    assert why_wrong(response, [*fields, *plain(path)]) is None


def test_the_server_lives(http: httpx.Client) -> None:
    assert_lives(http)


def test_a_key_that_stands_twice_counts_once(http: httpx.Client) -> None:
    """The last one, as in every JSON reader of note; so nothing is checked in one place and used in another."""
    body = b'{"prompt": "hi", "max_tokens": "no number", "max_tokens": 2}'
    answer = http.post(COMPLETIONS, content=body)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 2
    assert http.post(COMPLETIONS, content=b'{"prompt": "hi", "max_tokens": 2, "max_tokens": "no number"}').status_code == 400
