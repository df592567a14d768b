"""The data of a tuning: read, checked, as tokens, and packed into rows where that is requested.

Raises InvalidJob with everything that is wrong with it.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from jobs.datasets.examples import Example, Preference, columns_of
from jobs.datasets.reading import Data, stream
from jobs.task import InvalidJob, Problem
from jobs.tasks.finetune.kept_tokens import KeptTokens, digest_of_texts
from jobs.tasks.finetune.parameters import FinetuneParams
from jobs.tasks.finetune.rendering import IGNORED, PreferenceTokens, Rendered, Renderer, Tokens
from runtime.protocol.errors import InvalidRequest

T = TypeVar("T")
_TRAINING, _VALIDATION = "training", "validation"  # roles of the files


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a plan needs to know of data. num_rows: what a batch counts. longest: of a row, in tokens.

    left_out: a sentence for each reason for which lines are not used.
    """

    num_examples: int
    num_tokens: int
    longest: int
    num_rows: int
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Material:
    """tokens: of supervised tuning; preferences: of dpo. sha256: of all data together.

    packed: rows that hold several of the tokens, when they are to; longest: of a row, in tokens. left_out: as `Sizes` has it.
    """

    tokens: list[Tokens] = field(default_factory=list)
    preferences: list[PreferenceTokens] = field(default_factory=list)
    num_tokens: int = 0
    longest: int = 0
    sha256: str = ""
    packed: list[PackedRow] = field(default_factory=list)
    left_out: tuple[str, ...] = ()

    @property
    def num_rows(self) -> int:
        """What a batch counts."""
        return len(self.packed) or self.num_examples

    @property
    def num_examples(self) -> int:
        return len(self.tokens) + len(self.preferences)


def prepare(params: FinetuneParams, served: Path, planned: Path | None = None) -> tuple[Material, Material | None]:
    """(training, validation). served: the folder of the base's served variant.

    planned: where a plan or an earlier attempt may have kept the tokens, and where they are kept; None: nowhere.
    """
    kept = None if planned is None else _kept_tokens(params, served, planned)
    found = kept.read() if kept is not None else None
    if found is not None:
        made = {role: _material(data.examples(), data.sha256, data.left_out) for role, data in found.items()}
    else:
        made = _both(params, served, kept, _read_material)
    training = made[_TRAINING]
    return _packed(training, params.max_length, params.seed) if params.packing else training, made.get(_VALIDATION)


def measure(params: FinetuneParams, served: Path, planned: Path | None = None) -> tuple[Sizes, Sizes | None]:
    """As `prepare`, without holding any example in memory: some 100 bytes per line, however long the file is."""
    kept = None if planned is None else _kept_tokens(params, served, planned)
    made = _both(params, served, kept, _lengths)
    capacity = params.max_length if params.packing else None
    validation = made.get(_VALIDATION)
    return _sizes(*made[_TRAINING], capacity, params.seed), None if validation is None else _sizes(*validation, None, params.seed)


def _kept_tokens(params: FinetuneParams, served: Path, folder: Path) -> KeptTokens:
    made_by = {
        "served": digest_of_texts(served),
        "objective": params.objective,
        "text_template": params.text_template,
        "max_length": params.max_length,
    }
    return KeptTokens(folder, _files(params), made_by)


def _files(params: FinetuneParams) -> dict[str, Path]:
    given = {_TRAINING: params.data, _VALIDATION: params.validation}
    return {role: Path(path).expanduser() for role, path in given.items() if path is not None}


def _both(
    params: FinetuneParams, served: Path, kept: KeptTokens | None, collect: Callable[[Data, Iterator[Rendered]], T]
) -> dict[str, T]:
    """What is made of each file, by its role. Validation is read second, for it must be new to the model."""
    _check_template(params.text_template)
    renderer = Renderer(served)
    max_length = params.max_length or renderer.context_length
    if max_length > renderer.context_length:
        message = f"max_length is over the model's context of {renderer.context_length} tokens."
        raise InvalidJob([Problem(message, param="max_length")])
    made: dict[str, T] = {}
    problems: list[Problem] = []
    learned: Set[bytes] = frozenset()
    for role, path in _files(params).items():
        data = Data(path)
        lines = stream(data, objective=params.objective, text_template=params.text_template, learned=learned)
        examples = _rendered(data, lines, renderer, max_length)
        made[role] = collect(data, examples if kept is None else kept.passing(role, examples))
        problems += data.problems
        if kept is not None and not problems:
            kept.complete(role, data.sha256, data.left_out())
        learned = data.known
    if problems:
        raise InvalidJob(problems)
    return made


def _packed(material: Material, capacity: int | None, seed: int) -> Material:
    """capacity: tokens of a row."""
    assert capacity is not None
    groups = best_fit([each.length for each in material.tokens], capacity, seed)
    rows = [packed_row([material.tokens[index] for index in group]) for group in groups]
    return replace(material, packed=rows, longest=max(len(row.input_ids) for row in rows))


def _material(examples: Iterable[Rendered], sha256: str, left_out: tuple[str, ...]) -> Material:
    tokens: list[Tokens] = []
    preferences: list[PreferenceTokens] = []
    total = longest = 0
    for each in examples:
        if isinstance(each, Tokens):
            tokens.append(each)
        else:
            preferences.append(each)
        total, longest = total + each.length, max(longest, each.length)
    return Material(tokens, preferences, total, longest, sha256, left_out=left_out)


def _read_material(data: Data, examples: Iterator[Rendered]) -> Material:
    material = _material(examples, "", ())  # what is known of the file only once all of it was read
    return replace(material, sha256=data.sha256, left_out=data.left_out())


def _lengths(data: Data, examples: Iterator[Rendered]) -> tuple[array[int], tuple[str, ...]]:
    """(tokens of each example, what was left out)."""
    lengths = array("I", (each.length for each in examples))
    return lengths, data.left_out()


def _sizes(lengths: Sequence[int], left_out: tuple[str, ...], capacity: int | None, seed: int) -> Sizes:
    """capacity: of a row that several examples share; None when each has its own."""
    rows = [sum(lengths[index] for index in group) for group in best_fit(lengths, capacity, seed)] if capacity else lengths
    return Sizes(len(lengths), sum(lengths), max(rows, default=0), len(rows), left_out)


def _check_template(template: str | None) -> None:
    try:
        if template is not None and not list(columns_of(template)):
            raise ValueError("it names no column")
    except ValueError as error:
        message = f"text_template is not usable: {error}. Write columns as {{name}}."
        raise InvalidJob([Problem(message, param="text_template")]) from None


def _rendered(data: Data, examples: Iterator[Example], renderer: Renderer, max_length: int | None = None) -> Iterator[Rendered]:
    """Each as tokens. What cannot be rendered, or is too long, becomes a problem of the data."""
    for example in examples:
        try:
            made = renderer.preference(example) if isinstance(example, Preference) else renderer.tokens(example)
        except InvalidRequest as error:
            data.blame(example.line, error.message, "chat_template_error")
            continue
        if max_length is not None and made.length > max_length:
            data.blame(
                example.line, f"It is {made.length} tokens long; shorten it, or raise max_length ({max_length}).", "too_long"
            )
            continue
        yield made


def read_material(path: Path, renderer: Renderer) -> Material:
    """Reads conversations or completions of any length."""
    data = Data(path)
    material = _read_material(data, _rendered(data, stream(data), renderer))
    if data.problems:
        raise InvalidJob(data.problems)
    return material


@dataclass(frozen=True, slots=True)
class PackedRow:
    """Several examples one after another. position_ids: begin at 0 with each, which is how attention knows its borders."""

    input_ids: list[int]
    labels: list[int]
    position_ids: list[int]


def best_fit(lengths: Sequence[int], capacity: int, seed: int) -> list[list[int]]:
    """Rows of indices whose lengths sum up to capacity at most. Each index is in exactly one row; no length exceeds capacity."""
    order = list(range(len(lengths)))
    random.Random(seed).shuffle(order)  # noqa: S311 - neighbours among examples of one length, no secret
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, row), ascending
    for index in sorted(order, key=lengths.__getitem__, reverse=True):
        place = bisect_left(free, (lengths[index], 0))
        if place == len(free):
            left, row = capacity, len(rows)
            rows.append([])
        else:
            left, row = free.pop(place)
        rows[row].append(index)
        insort(free, (left - lengths[index], row))
    return rows


def packed_row(examples: Sequence[Tokens]) -> PackedRow:
    """An example's first token is never learned: it would be learned from the example before it."""
    return PackedRow(
        [token for example in examples for token in example.input_ids],
        [label for example in examples for label in (IGNORED, *example.labels[1:])],
        [position for example in examples for position in range(len(example.input_ids))],
    )
