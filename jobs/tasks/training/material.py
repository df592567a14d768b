"""The data of a tuning, read, checked and as tokens. Raises InvalidJob with everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from jobs.datasets.examples import Preference
from jobs.datasets.reading import Data, blame_leaks, columns_of, read_data
from jobs.job import InvalidJob, Problem
from jobs.tasks.training.packing import PackedRow, best_fit, packed_row
from jobs.tasks.training.parameters import FinetuneParams
from jobs.tasks.training.rendering import PreferenceTokens, Renderer, Tokens
from runtime.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Material:
    """tokens: of supervised tuning; preferences: of dpo. sha256: of all data together.

    packed: rows that hold several of the tokens, when they are to; longest: of a row, in tokens.
    """

    tokens: list[Tokens] = field(default_factory=list)
    preferences: list[PreferenceTokens] = field(default_factory=list)
    num_tokens: int = 0
    longest: int = 0
    sha256: str = ""
    packed: list[PackedRow] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        """What a batch counts."""
        return len(self.packed) or self.num_examples

    @property
    def num_examples(self) -> int:
        return len(self.tokens) + len(self.preferences)


def prepare(params: FinetuneParams, served: Path) -> tuple[Material, Material | None]:
    """(training, validation). served: the folder of the base's served variant."""
    _check_template(params.text_template)
    renderer = Renderer(served)
    max_length = params.max_length or renderer.context_length
    if max_length > renderer.context_length:
        message = f"max_length is over the model's context of {renderer.context_length} tokens."
        raise InvalidJob([Problem(message, param="max_length")])
    training = _read(params, params.data)
    validation = _read(params, params.validation) if params.validation else None
    if validation is not None:
        blame_leaks(training, validation)
    both = [each for each in (training, validation) if each is not None]
    made = [_rendered(data, renderer, max_length) for data in both]
    if problems := [problem for data in both for problem in data.problems]:
        raise InvalidJob(problems)
    learned = _packed(made[0], max_length, params.seed) if params.packing else made[0]
    return learned, made[1] if validation is not None else None


def _packed(material: Material, capacity: int, seed: int) -> Material:
    groups = best_fit([len(each.input_ids) for each in material.tokens], capacity, seed)
    rows = [packed_row([material.tokens[index] for index in group]) for group in groups]
    return replace(material, packed=rows, longest=max(len(row.input_ids) for row in rows))


def _read(params: FinetuneParams, path: str) -> Data:
    return read_data(Path(path).expanduser(), objective=params.objective, text_template=params.text_template)


def _check_template(template: str | None) -> None:
    try:
        if template is not None and not list(columns_of(template)):
            raise ValueError("it names no column")
    except ValueError as error:
        message = f"text_template is not usable: {error}. Write columns as {{name}}."
        raise InvalidJob([Problem(message, param="text_template")]) from None


def _rendered(data: Data, renderer: Renderer, max_length: int | None = None) -> Material:
    tokens: list[Tokens] = []
    preferences: list[PreferenceTokens] = []
    total = longest = 0
    for example in data.examples:
        try:
            if isinstance(example, Preference):
                pair = renderer.preference(example)
                preferences.append(pair)
                length = pair.length
            else:
                made = renderer.tokens(example)
                tokens.append(made)
                length = len(made.input_ids)
        except InvalidRequest as error:
            data.blame(example.line, error.message, "chat_template_error")
            continue
        total, longest = total + length, max(longest, length)
        if max_length is not None and length > max_length:
            data.blame(example.line, f"It is {length} tokens long; shorten it, or raise max_length ({max_length}).", "too_long")
    return Material(tokens, preferences, total, longest, data.sha256)


def read_material(path: Path, renderer: Renderer) -> Material:
    """Of conversations or completions of any length."""
    data = read_data(path)
    material = _rendered(data, renderer)
    if data.problems:
        raise InvalidJob(data.problems)
    return material
