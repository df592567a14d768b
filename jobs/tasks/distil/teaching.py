"""The teacher's answers: requested once, kept as they come, filtered, and written as training data. The filters are pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.task import JobFailure, TaskContext
from jobs.tasks.distil.parameters import DistilParams, Filters
from jobs.tasks.evaluate.metrics import normalised
from jobs.tasks.evaluate.questions import Answered, Question, kept_answers
from jobs.tasks.evaluate.scoring import grades
from jobs.tasks.evaluate.targets import open_target

_ANSWERS, _TAUGHT = "answers.jsonl", "taught.jsonl"
_HASHES = 64  # of a MinHash signature: its error is about an eighth
_SHINGLE = 3  # words


def taught(params: DistilParams, questions: Sequence[Question], context: TaskContext) -> tuple[Path, dict[str, int]]:
    """(the file of training data, the numbers of answers requested and kept)."""
    path, made = context.folder / _ANSWERS, context.folder / _TAUGHT
    total = len(questions) * params.num_samples
    found = kept_answers(path)
    missing = [(number, questions[number // params.num_samples]) for number in range(total) if number not in found]
    if missing:
        context.stage("querying the teacher")
        teacher = open_target(params.teacher, context)
        try:
            with path.open("a", encoding="utf-8") as file:
                for number, answered in teacher.answers(missing, params.num_tokens, params.heat, params.seed):
                    found[number] = answered
                    file.write(json.dumps({"number": number, **asdict(answered)}) + "\n")
                    file.flush()
                    context.progress(len(found), total, unit="answers")
        finally:
            teacher.close()
    context.stage("filtering")
    rows: list[tuple[Question, Answered]] = []
    for index, question in enumerate(questions):
        samples = [found[index * params.num_samples + sample] for sample in range(params.num_samples)]
        rows += [(question, samples[place]) for place in kept(samples, params.chosen_filters)]
    if params.judge is not None and rows:
        rows = _graded(params, rows, context)
    if params.chosen_filters.near_duplicates is not None:
        texts = [f"{question.messages[-1].get('content')} {answered.text}" for question, answered in rows]
        places = without_near_duplicates(texts, params.chosen_filters.near_duplicates)
        rows = [rows[place] for place in places]
    if not rows:
        raise JobFailure("No answer of the teacher passed the filters. Loosen them, or use another teacher.", code="nothing_kept")
    beside = made.with_suffix(".new")
    beside.write_text("".join(json.dumps(_row(*row)) + "\n" for row in rows), encoding="utf-8")
    beside.replace(made)
    counts = {"answers": total, "kept": len(rows)}
    context.reporter.message(f"{len(rows)} of {total} answers are learned.")
    return made, counts


def _graded(params: DistilParams, rows: list[tuple[Question, Answered]], context: TaskContext) -> list[tuple[Question, Answered]]:
    assert params.judge is not None
    assert params.chosen_filters.min_grade is not None
    context.stage("grading")
    judge = open_target(params.judge, context)
    try:
        given = grades(judge, [row[0] for row in rows], [row[1] for row in rows], "Judge correctness first, then clarity.")
    finally:
        judge.close()
    least = (params.chosen_filters.min_grade - 1) / 4
    return [row for row, grade in zip(rows, given, strict=True) if grade is not None and grade >= least]


def _row(question: Question, answered: Answered) -> dict[str, Any]:
    answer: dict[str, Any] = {"role": "assistant", "content": answered.text}
    if answered.calls:
        answer["content"] = answered.text or None
        answer["tool_calls"] = [
            {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for number, (name, arguments) in enumerate(answered.calls)
        ]
    row: dict[str, Any] = {"messages": [*question.messages, answer]}
    return row | ({"tools": list(question.tools)} if question.tools else {})


def kept(samples: Sequence[Answered], filters: Filters) -> list[int]:
    """Which samples of one prompt are kept, by their places; equal ones once."""
    sound = [index for index, each in enumerate(samples) if is_sound(each, filters)]
    if filters.agreement and sound:
        gists = [gist(samples[index].text) for index in sound]
        most, count = Counter(gists).most_common(1)[0]
        sound = [index for index, each in zip(sound, gists, strict=True) if each == most]
        if count < filters.agreement * len(samples):
            return []
    seen: set[tuple[str, str]] = set()
    unique = []
    for index in sound:
        key = (samples[index].text.strip(), json.dumps(samples[index].calls, sort_keys=True))
        if key not in seen:
            seen.add(key)
            unique.append(index)
    return unique


def is_sound(answered: Answered, filters: Filters) -> bool:
    """Length and form. A call whose arguments are no JSON object is never sound; a sound call needs no text."""
    if answered.calls:
        return all(arguments is not None for _, arguments in answered.calls)
    text = answered.text.strip()
    if len(text) < max(1, filters.min_chars) or (filters.max_chars is not None and len(text) > filters.max_chars):
        return False
    if filters.pattern is not None and re.search(filters.pattern, text) is None:
        return False
    return not filters.is_json or _is_json(text)


def gist(text: str) -> str:
    """What samples are compared by: the last number, or else all words."""
    numbers = re.findall(r"-?\d[\d,]*\.?\d*", text)
    return numbers[-1].replace(",", "").rstrip(".") if numbers else normalised(text)


def without_near_duplicates(texts: Sequence[str], likeness: float) -> list[int]:
    """The places of those that are not like an earlier one, by MinHash over words (Broder, 1997)."""
    places: list[int] = []
    signatures: list[tuple[int, ...]] = []
    for index, text in enumerate(texts):
        mine = signature(text)
        if all(sum(a == b for a, b in zip(mine, other, strict=True)) < likeness * _HASHES for other in signatures):
            places.append(index)
            signatures.append(mine)
    return places


def signature(text: str) -> tuple[int, ...]:
    """MinHash of the text's shingles."""
    words = normalised(text).split()
    shingles = {" ".join(words[start : start + _SHINGLE]) for start in range(max(1, len(words) - _SHINGLE + 1))}
    return tuple(min(map(_hash_with(number), shingles)) for number in range(_HASHES))


def _hash_with(number: int) -> Callable[[str], int]:
    salt = number.to_bytes(8, "big")

    def hashed(shingle: str) -> int:
        return int.from_bytes(hashlib.blake2b(shingle.encode(), digest_size=8, salt=salt).digest(), "big")

    return hashed


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
