"""The data of a tuning, read, checked and as tokens. Raises InvalidJob with everything that is wrong with it."""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from jobs.datasets.examples import Example, Preference
from jobs.datasets.reading import Data, columns_of, stream
from jobs.task import InvalidJob, Problem
from jobs.tasks.finetune.parameters import FinetuneParams
from jobs.tasks.finetune.rendering import IGNORED, PreferenceTokens, Renderer, Tokens
from runtime.errors import InvalidRequest

T = TypeVar("T")
Rendered = Tokens | PreferenceTokens


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


def prepare(params: FinetuneParams, served: Path) -> tuple[Material, Material | None]:
    """(training, validation). served: the folder of the base's served variant."""
    training, validation, max_length = _both(params, served, _material)
    return _packed(training, max_length, params.seed) if params.packing else training, validation


def measure(params: FinetuneParams, served: Path) -> tuple[Sizes, Sizes | None]:
    """As `prepare`, without keeping any example: some 100 bytes per line, however long the file is."""
    training, validation, max_length = _both(params, served, _lengths)
    capacity = max_length if params.packing else None
    return _sizes(*training, capacity, params.seed), None if validation is None else _sizes(*validation, None, params.seed)


def _both(
    params: FinetuneParams, served: Path, collect: Callable[[Data, Iterator[tuple[Rendered, int]]], T]
) -> tuple[T, T | None, int]:
    """(what is made of the training data, of the validation data, the longest that an example may be)."""
    _check_template(params.text_template)
    renderer = Renderer(served)
    max_length = params.max_length or renderer.context_length
    if max_length > renderer.context_length:
        message = f"max_length is over the model's context of {renderer.context_length} tokens."
        raise InvalidJob([Problem(message, param="max_length")])
    read: list[Data] = []

    def made(path: str, learned: Set[bytes]) -> T:
        data = Data(Path(path).expanduser())
        read.append(data)
        examples = stream(data, objective=params.objective, text_template=params.text_template, learned=learned)
        return collect(data, _rendered(data, examples, renderer, max_length))

    training = made(params.data, frozenset())
    validation = made(params.validation, read[0].known) if params.validation else None
    if problems := [problem for data in read for problem in data.problems]:
        raise InvalidJob(problems)
    return training, validation, max_length


def _packed(material: Material, capacity: int, seed: int) -> Material:
    groups = best_fit([len(each.input_ids) for each in material.tokens], capacity, seed)
    rows = [packed_row([material.tokens[index] for index in group]) for group in groups]
    return replace(material, packed=rows, longest=max(len(row.input_ids) for row in rows))


def _material(data: Data, rendered: Iterator[tuple[Rendered, int]]) -> Material:
    tokens: list[Tokens] = []
    preferences: list[PreferenceTokens] = []
    total = longest = 0
    for each, length in rendered:
        if isinstance(each, Tokens):
            tokens.append(each)
        else:
            preferences.append(each)
        total, longest = total + length, max(longest, length)
    return Material(tokens, preferences, total, longest, data.sha256, left_out=data.left_out())


def _lengths(data: Data, rendered: Iterator[tuple[Rendered, int]]) -> tuple[array[int], tuple[str, ...]]:
    """(tokens of each example, what was left out)."""
    lengths = array("I", (length for _, length in rendered))
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


def _rendered(
    data: Data, examples: Iterator[Example], renderer: Renderer, max_length: int | None = None
) -> Iterator[tuple[Rendered, int]]:
    """Each as tokens, and how many. What cannot be rendered, or is too long, becomes a problem of the data."""
    for example in examples:
        try:
            if isinstance(example, Preference):
                pair = renderer.preference(example)
                made: tuple[Rendered, int] = (pair, pair.length)
            else:
                tokens = renderer.tokens(example)
                made = (tokens, len(tokens.input_ids))
        except InvalidRequest as error:
            data.blame(example.line, error.message, "chat_template_error")
            continue
        if max_length is not None and made[1] > max_length:
            data.blame(example.line, f"It is {made[1]} tokens long; shorten it, or raise max_length ({max_length}).", "too_long")
            continue
        yield made


def read_material(path: Path, renderer: Renderer) -> Material:
    """Of conversations or completions of any length."""
    data = Data(path)
    material = _material(data, _rendered(data, stream(data), renderer))
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
    """Rows of indices whose lengths sum up to capacity at most. An index stands in one row; no length is over capacity."""
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
