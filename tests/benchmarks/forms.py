"""`make bench-forms`: what guarantees of form cost, and whether they hold, on a real daemon. Prints figures; asserts nothing.

speed        constrained beside free answers of the same length, at 1 and 8 rows
prediction   answers that repeat a given text, with it as prediction and without: seconds, and whether they are the same
tools        the Berkeley function-calling data: calls emitted, parsed, valid by their schema, and right
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jsonschema

from tests.benchmarks.daemon import Daemon, daemon
from tests.benchmarks.function_calls import CATEGORIES, FunctionCalls, Question

TOKENS = 192
ROUNDS = 3
CLIENTS = 8
PREDICTED = (
    "Write a Python class for a point in the plane.",
    "Explain how a rainbow is made.",
    "Write a short story about a lighthouse.",
    "List ten countries of Europe with their capitals.",
    "Write a polite letter that declines an invitation.",
    "Explain what a database index is.",
    "Describe how bread is baked, step by step.",
    "Write a haiku about the sea, then explain it.",
)
PEOPLE = {
    "type": "array",
    "minItems": 40,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 24},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "email_address": {"type": "string", "maxLength": 30},
            "is_member": {"type": "boolean"},
            "kind": {"enum": ["person", "company", "association"]},
        },
        "required": ["name", "age", "email_address", "is_member", "kind"],
        "additionalProperties": False,
    },
}
FORMS: dict[str, dict[str, Any]] = {
    "free": {"ignore_eos": True},
    "any text (regex)": {"structured_outputs": {"regex": r"(.|\n){2000}"}},
    "JSON schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "people", "schema": PEOPLE}}},
}


async def _request(http: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    response = await http.post("/v1/chat/completions", json=body)
    if response.status_code != httpx.codes.OK:
        raise SystemExit(f"{response.status_code} {response.text[:500]}")
    answer: dict[str, Any] = response.json()
    return answer


def _client(d: Daemon) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=d.url, timeout=600, trust_env=False)


async def _speed(d: Daemon, clients: int, form: dict[str, Any]) -> float:
    """Tokens a second."""
    async with _client(d) as http:
        bodies = [
            {
                "messages": [{"role": "user", "content": f"Make a list of {number + 20} people in JSON."}],
                "max_tokens": TOKENS,
                "temperature": 0.7,
                "seed": number,
                **form,
            }
            for number in range(clients)
        ]
        await _request(http, bodies[0])  # compiles the grammar
        began = time.perf_counter()
        answers = await asyncio.gather(*(_request(http, body) for body in bodies))
        seconds = time.perf_counter() - began
    return sum(int(answer["usage"]["completion_tokens"]) for answer in answers) / seconds


def speed(model: str) -> None:
    with daemon(model) as d:
        for clients in (1, CLIENTS):
            best: dict[str, float] = dict.fromkeys(FORMS, 0.0)
            for _ in range(ROUNDS):
                for name, form in FORMS.items():
                    best[name] = max(best[name], asyncio.run(_speed(d, clients, form)))
            for name, rate in best.items():
                print(f"{clients} rows, {name}: {rate:.0f} tokens/s, {rate / best['free']:.2f} of free", flush=True)


async def _predict(d: Daemon) -> None:
    """The prediction is the model's own answer, whole or with every twentieth word changed, or a text that it never generates."""
    variants: dict[str, Callable[[str], str | None]] = {
        "none": lambda _: None,
        "the answer": lambda answer: answer,
        "the answer, every twentieth word another": _edited,
        "another text": lambda _: "The weather is fine today. " * 20,
    }
    seconds, same = dict.fromkeys(variants, 0.0), dict.fromkeys(variants, 0)
    accepted, rejected = dict.fromkeys(variants, 0), dict.fromkeys(variants, 0)
    async with _client(d) as http:
        for requested in PREDICTED:
            body = {"messages": [{"role": "user", "content": requested}], "temperature": 0, "max_tokens": 220}
            plain = str((await _request(http, body))["choices"][0]["message"]["content"])
            for name, predict in variants.items():
                content = predict(plain)
                extra = {} if content is None else {"prediction": {"type": "content", "content": content}}
                times = []
                for _ in range(ROUNDS):
                    began = time.perf_counter()
                    answer = await _request(http, body | extra)
                    times.append(time.perf_counter() - began)
                seconds[name] += min(times)
                same[name] += answer["choices"][0]["message"]["content"] == plain
                details = answer["usage"]["completion_tokens_details"]
                accepted[name] += details["accepted_prediction_tokens"]
                rejected[name] += details["rejected_prediction_tokens"]
    for name in variants:
        reported = f"{same[name]} of {len(PREDICTED)} answers the same, {accepted[name]} tokens accepted, {rejected[name]} rejected"
        print(f"prediction, {name}: {seconds[name] / seconds['none']:.2f} of the time without, {reported}")


def _edited(text: str) -> str:
    words = text.split(" ")
    return " ".join("other" if at % 20 == 19 else word for at, word in enumerate(words))


def prediction(model: str) -> None:
    with daemon(model) as d:
        asyncio.run(_predict(d))


@dataclass(slots=True)
class _Tally:
    """Of one category. cut: answers that max_tokens ended."""

    questions: int = 0
    refused: int = 0
    cut: int = 0
    with_calls: int = 0
    calls: int = 0
    parsed: int = 0
    valid: int = 0
    right: int = 0
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        requested = f"{self.questions} questions, {self.refused} refused, {self.cut} cut by max_tokens"
        calls = f"{self.with_calls} answers with calls: {self.calls} emitted, {self.parsed} parse, {self.valid} valid by schema"
        return f"{requested}; {calls}; {self.right} answers right ({100 * self.right / max(1, self.questions):.1f} %)"


def _judge(data: FunctionCalls, category: str, question: Question, choice: dict[str, Any], tally: _Tally) -> None:
    """Calls of an answer that max_tokens cut may be unfinished: they are not counted."""
    if choice["finish_reason"] == "length":
        tally.cut += 1
        return
    calls = choice["message"].get("tool_calls") or []
    tally.with_calls += bool(calls)
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in question.tools}
    read = []
    for call in calls:
        tally.calls += 1
        name, text = call["function"]["name"], call["function"]["arguments"]
        try:
            arguments = json.loads(text)
            tally.parsed += 1
            jsonschema.validate(arguments, schemas[name])
            tally.valid += 1
        except (ValueError, KeyError, jsonschema.ValidationError) as error:
            tally.problems.append(f"{question.id}: {name} {text[:200]}: {str(error).splitlines()[0]}")
            continue
        read.append((name, arguments))
    tally.right += bool(read) and data.is_correct(category, question, read)


async def _request_all(d: Daemon, data: FunctionCalls, category: str, questions: Sequence[Question], choice: str) -> _Tally:
    tally, gate = _Tally(), asyncio.Semaphore(CLIENTS)
    async with _client(d) as http:

        async def one(question: Question) -> None:
            body = {
                "messages": question.messages,
                "tools": question.tools,
                "tool_choice": choice,
                "parallel_tool_calls": category == "parallel",
                "temperature": 0,
                "max_tokens": 400,
            }
            async with gate:
                response = await http.post("/v1/chat/completions", json=body)
            tally.questions += 1
            if response.status_code != httpx.codes.OK:
                tally.refused += 1
                tally.problems.append(f"{question.id}: {response.status_code} {response.text[:300]}")
                return
            _judge(data, category, question, response.json()["choices"][0], tally)

        await asyncio.gather(*map(one, questions))
    return tally


def tools(model: str, count: int | None, choices: Sequence[str]) -> None:
    data = FunctionCalls(Path(".venv/bfcl"))
    with daemon(model) as d:
        for choice in choices:
            for category in CATEGORIES:
                began = time.perf_counter()
                tally = asyncio.run(_request_all(d, data, category, data.questions(category, count), choice))
                print(f"{category}, {choice}: {tally.line()}; {time.perf_counter() - began:.0f} s", flush=True)
                for problem in tally.problems[:5]:
                    print(f"    {problem}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-forms", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["speed", "prediction", "tools"])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--count", type=int, help="questions of each category; all by default")
    parser.add_argument("--choices", nargs="+", default=["required", "auto"])
    options = parser.parse_args()
    for part in options.parts:
        print(f"== {part}", flush=True)
        if part == "tools":
            tools(options.model, options.count, options.choices)
        else:
            {"speed": speed, "prediction": prediction}[part](options.model)


if __name__ == "__main__":
    main()
