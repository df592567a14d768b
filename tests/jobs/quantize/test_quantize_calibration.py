"""Which texts a task's examples are for a quantization: of which tokens it is measured, and what guides it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.task import InvalidJob
from jobs.tasks.finetune.rendering import IGNORED, Tokens
from jobs.tasks.quantize.calibration import GUIDING_TOKENS, LONGEST, Examples, read_examples
from model_registry.conversion.measure.perplexity import Texts
from model_registry.registry import open_registry


@pytest.fixture
def served(home: Path) -> Path:
    with open_registry(home) as registry:
        return registry.resolve("tiny").variants[0].folder


def example(line: int, question: int, answer: int) -> Tokens:
    """Its tokens are its line's number."""
    return Tokens(line, [line] * (question + answer), [IGNORED] * question + [line] * answer)


def test_one_half_guides_and_the_other_is_measured() -> None:
    examples = Examples([example(line, 3, 2) for line in range(10)], "")
    measured, guiding = examples.measured(11), examples.guiding()
    assert [int(window[0]) for window in measured.windows] == [0, 2, 4]
    assert [int(window[0]) for window in guiding.windows] == [1, 3, 5, 7, 9]
    assert measured.counts is not None
    assert [each.tolist() for each in measured.counts] == [[False, False, False, True, True]] * 3


def test_of_a_long_example_the_end_is_read_and_of_many_only_some_guide() -> None:
    examples = Examples([example(line, 2 * LONGEST, 7) for line in range(10)], "")
    guiding = examples.guiding()
    assert [len(window) for window in guiding.windows] == [LONGEST] * -(-GUIDING_TOKENS // LONGEST)
    assert guiding.counts is not None
    assert guiding.counts[0].sum() == 7
    assert guiding.counts[0][-7:].all()


def test_rows_that_predict_an_answer_are_distinguished_from_the_others() -> None:
    logits = [np.arange(8, dtype=np.float32).reshape(4, 2)]
    texts = Texts([np.array([1, 2, 3, 4])], [np.array([True, False, True, False])])
    (rows,) = texts.predicting(logits)
    assert rows.tolist() == [[2, 3]]
    (rows,) = Texts(texts.windows).predicting(logits)
    assert rows.tolist() == logits[0].tolist()


def test_examples_are_read_as_the_model_is_served_them(served: Path, tmp_path: Path) -> None:
    data = tmp_path / "examples.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": f"the {n} " + "cat " * 999, "completion": "a cat"}) for n in range(3)))
    examples = read_examples(str(data), served)
    assert (len(examples.tokens), len(examples.sha256), examples.longest) == (3, 64, 512)
    assert all(len(each.input_ids) > 512 for each in examples.tokens)
    measured = examples.measured(600)
    assert [len(window) for window in measured.windows] == [512, 512]
    assert measured.counts is not None
    assert 0 < measured.counts[0].sum() < 20


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([{"prompt": "the", "completion": "cat"}], "at least two examples"),
        ([{"prompt": "the", "completion": "cat"}, {"messages": []}], "jsonl:2: "),
        ([], "no examples"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(served: Path, tmp_path: Path, lines: list[dict[str, object]], why: str) -> None:
    data = tmp_path / "examples.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(InvalidJob, match=why):
        read_examples(str(data), served)
