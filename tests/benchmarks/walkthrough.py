"""The whole life of a model on real data: function calling on the Berkeley data, from a baseline to a distilled student.

`python -m tests.benchmarks.walkthrough`: serves, then works as a user would, with OpenAI's client and the admin API, and prints
`docs/tune/walkthrough.md`. Every question of the test split is sent to every model; the data's own checker grades the answers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai

from tests.benchmarks.function_calls import CATEGORIES, FunctionCalls, Question
from tests.doubles.daemon_process import running_daemon

MODEL = "smollm2-135m"
SPLIT = 4  # every fourth question of a category is for the test
TIMED = 30  # questions that are sent one at a time
CLIENTS = 8  # that send the others
REFERENCE = 1  # the row that the others are compared with: the tuned model, before anything made it smaller
Exercise = tuple[str, Question]
Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One model of the table. latency_s: p50 of calls one at a time. bytes: on disk, and resident while it serves."""

    name: str
    accuracy: float
    latency_s: float
    size_bytes: int
    resident_bytes: int


def split(data: FunctionCalls, num_training: int, num_test: int) -> tuple[list[Exercise], list[Exercise]]:
    """(training, test): fixed, and of all categories in turn."""
    training: list[Exercise] = []
    test: list[Exercise] = []
    by_category = {category: data.questions(category) for category in CATEGORIES}
    for number in range(max(map(len, by_category.values()))):
        for category, questions in by_category.items():
            if number < len(questions):
                (test if number % SPLIT == 0 else training).append((category, questions[number]))
    return training[:num_training], test[:num_test]


def as_example(question: Question) -> dict[str, Any]:
    """A question with its right calls, as training data has it: of several right values the first."""
    calls = []
    for number, answer in enumerate(question.answers):
        ((name, allowed),) = answer.items()
        arguments = {key: values[0] for key, values in allowed.items() if values and values[0] != ""}
        function = {"name": name.replace(".", "_"), "arguments": json.dumps(arguments)}
        calls.append({"id": f"call_{number}", "type": "function", "function": function})
    return {"messages": [*question.messages, {"role": "assistant", "content": None, "tool_calls": calls}], "tools": question.tools}


class Walk:
    """A user at work. api: the admin API; client: OpenAI's."""

    def __init__(self, url: str, data: FunctionCalls) -> None:
        self._api = httpx.Client(base_url=url, timeout=None, trust_env=False)
        self._client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=600)
        self._data = data

    def upload(self, file: Path) -> str:
        """Its id, by which jobs name it."""
        return self._client.files.create(file=file, purpose="fine-tune").id

    def job(self, kind: str, **params: Any) -> dict[str, Any]:
        """Created and followed to its end. Fails unless it succeeds."""
        created = self._api.post("/admin/jobs", json={"kind": kind, "params": params})
        assert created.status_code == 201, created.text
        id_ = created.json()["id"]
        with self._api.stream("GET", f"/admin/jobs/{id_}/events", params={"stream": True}) as events:
            for _ in events.iter_lines():
                pass
        job: dict[str, Any] = self._api.get(f"/admin/jobs/{id_}").json()
        assert job["status"] == "succeeded", job["failure"]
        seconds = job["ended_at"] - job["started_at"]
        print(f"{kind}: {job['outcome']['version']} after {seconds:.0f} s", file=sys.stderr, flush=True)
        return job

    def row(self, name: str, test: Sequence[Exercise]) -> Row:
        """The first questions are sent one at a time, to measure the latency, the others concurrently: answers are the same."""
        times, answers = [], []
        for _, question in test[:TIMED]:
            begun = time.perf_counter()
            answers.append(self._calls(name, question))
            times.append(time.perf_counter() - begun)
        with ThreadPoolExecutor(CLIENTS) as clients:
            answers += clients.map(lambda requested: self._calls(name, requested[1]), test[TIMED:])
        right = sum(self._data.is_correct(*requested, calls) for requested, calls in zip(test, answers, strict=True))
        loaded = next(each for each in self._api.get("/admin/models").json()["data"] if each["id"].partition(":")[0] == name)
        size = self._served_bytes(name)
        self._api.post(f"/admin/models/{name}/unload", json={})
        row = Row(name, right / len(test), statistics.median(times), size, loaded["resident_bytes"])
        print(row, file=sys.stderr, flush=True)
        return row

    def _calls(self, name: str, question: Question) -> list[Call]:
        answer = self._client.chat.completions.create(
            model=name,
            messages=question.messages,  # type: ignore[arg-type]
            tools=question.tools,  # type: ignore[arg-type]
            tool_choice="required",
            max_tokens=256,
            temperature=0,
        )
        functions = [call.function for call in answer.choices[0].message.tool_calls or () if call.type == "function"]
        return [(function.name, _arguments(function.arguments)) for function in functions]

    def _served_bytes(self, name: str) -> int:
        from model_registry.registry import open_registry
        from server.settings.daemon import Settings

        with open_registry(Settings().home) as registry:
            return sum(build.size_bytes for build in registry.resolve(name).builds)


def _arguments(text: str) -> dict[str, Any]:
    """Cut answers have none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def page(rows: Sequence[Row], facts: Sequence[str]) -> str:
    whole = rows[REFERENCE]
    lines = [
        f"| {row.name} | {row.accuracy:.1%} ({row.accuracy / max(whole.accuracy, 1e-9):.2f}) | "
        f"{row.size_bytes / 1e6:.0f} MB ({row.size_bytes / whole.size_bytes:.2f}) | "
        f"{row.resident_bytes / 1e6:.0f} MB ({row.resident_bytes / whole.resident_bytes:.2f}) | "
        f"{row.latency_s * 1000:.0f} ms ({row.latency_s / whole.latency_s:.2f}) |"
        for row in rows
    ]
    head = ["| model | accuracy | size on disk | resident memory | latency of a call, p50 |", "|---|---|---|---|---|"]
    return "\n".join(["# The life of a model", "", *(f"- {fact}" for fact in facts), "", *head, *lines, ""])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--training", type=int, default=160, help="Examples to learn.")
    options.add_argument("--test", type=int, default=120, help="Number of questions.")
    options.add_argument("--epochs", type=float, default=2, help="Passes of the tuning.")
    options.add_argument("--learning-rate", type=float, default=1e-3, help="Of the tuning.")
    options.add_argument("--layers", type=int, default=26, help="Of the student, of the teacher's 30.")
    options.add_argument("--student-epochs", type=float, default=1, help="Passes of the student's training.")
    options.add_argument("--student-rate", type=float, default=1e-3, help="Of the student's training.")
    given = options.parse_args()
    began = time.monotonic()
    data = FunctionCalls(Path(".venv/bfcl"))
    training, test = split(data, given.training, given.test)
    stamp = f"{time.time():.0f}"
    from server.settings.daemon import Settings

    with tempfile.TemporaryDirectory() as folder, running_daemon(Settings().home, folder=Path(folder)) as daemon:
        daemon.wait_until_ready()
        file = Path(folder) / "training.jsonl"
        file.write_text("\n".join(json.dumps(as_example(question)) for _, question in training))
        walk = Walk(daemon.url, data)
        uploaded = walk.upload(file)
        tuned, student = f"calls-tuned-{stamp}", f"calls-student-{stamp}"
        rows = [walk.row(MODEL, test)]
        walk.job(
            "finetune",
            model=MODEL,
            data=uploaded,
            output=tuned,
            epochs=given.epochs,
            batch_size=2,
            gradient_accumulation=2,
            learning_rate=given.learning_rate,
        )
        walk.job("quantize", model=tuned, output=f"{tuned}-fp32", precision="fp32")
        rows += [walk.row(f"{tuned}-fp32", test), walk.row(tuned, test)]
        walk.job("quantize", model=tuned, output=f"{tuned}-small", max_quality_loss=1.05)
        rows.append(walk.row(f"{tuned}-small", test))
        walk.job(
            "distil",
            teacher=tuned,
            student={"layers": given.layers},
            data=uploaded,
            preset="tools",
            logits={"alpha": 0.5},
            training={
                "method": "lora",
                "rank": 32,
                "epochs": given.student_epochs,
                "batch_size": 2,
                "gradient_accumulation": 2,
                "learning_rate": given.student_rate,
            },
            output=student,
        )
        rows.append(walk.row(student, test))
        walk.job("quantize", model=student, output=f"{student}-small", max_quality_loss=1.05)
        rows.append(walk.row(f"{student}-small", test))
    requested = f"{len(training)} training examples, {len(test)} test questions"
    taught = f"the student has {given.layers} of the teacher's 30 layers and was taught in {given.student_epochs:g} passes"
    facts = [
        f"Function calling on the Berkeley data ({', '.join(CATEGORIES)}): {requested}.",
        f"Tuned in {given.epochs:g} passes; {taught}. In brackets: over the tuned model at float32.",
        f"All of it took {(time.monotonic() - began) / 60:.0f} minutes.",
    ]
    print(page(rows, facts))


if __name__ == "__main__":
    main()
