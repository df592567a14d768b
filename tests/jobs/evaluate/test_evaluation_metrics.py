"""What answers are worth: each metric on answers whose worth is known, intervals, and the report."""

from __future__ import annotations

import pytest

from jobs.tasks.evaluate.metrics import (
    SCORES,
    Measured,
    difference,
    few_questions,
    measured,
    measured_together,
    perplexity,
    proportion,
    rouge_l,
)
from jobs.tasks.evaluate.questions import Answered, Question
from jobs.tasks.evaluate.report import Column, markdown, page
from jobs.tasks.evaluate.scoring import _DIGIT, _VOTE

pytestmark = pytest.mark.unit

CALL = ("f", {"a": 1, "b": [2]})


@pytest.mark.parametrize(
    ("metric", "right", "expected_text", "worth"),
    [
        ("exact_match", "The Cat.", "cat", 1.0),
        ("exact_match", "cat", "cats", 0.0),
        ("accuracy", "positive", "Positive. It is kind.", 1.0),
        ("accuracy", "positive", "not positive", 0.0),
        ("accuracy", "", "", 0.0),
        ("f1", "a red cat", "the red dog", 0.5),
        ("f1", "cat", "", 0.0),
        ("last_number", "so 1,200", "It is 3, then 1200.", 1.0),
        ("last_number", "7", "no number", 0.0),
        ("json_validity", "anything", '{"a": 1}', 1.0),
        ("json_validity", '{"a": 1}', '{"b": 1}', 0.0),
        ("json_validity", '{"a": 1}', "{a: 1}", 0.0),
    ],
)
def test_scores(metric: str, right: str, expected_text: str, worth: float) -> None:
    assert SCORES[metric](Question(1, [], right), Answered(expected_text)) == worth


def test_calls_match_in_any_order_with_equal_arguments() -> None:
    match = SCORES["tool_call_match"]
    question = Question(1, [], "", calls=(CALL, ("g", {})))
    assert match(question, Answered("", (("g", {}), ("f", {"b": [2], "a": 1})))) == 1.0
    assert match(Question(1, [], "", calls=(("f", {"a": 1}),)), Answered("", (("f", {"a": 1.0}),))) == 1.0
    assert match(question, Answered("", (CALL,))) == 0.0
    assert match(question, Answered("", (CALL, ("g", None)))) == 0.0
    assert match(Question(1, [], "hi"), Answered("hi")) == 1.0
    assert match(Question(1, [], "hi"), Answered("", (CALL,))) == 0.0


def test_the_fields_own_metrics() -> None:
    assert rouge_l(Question(1, [], "the cat sat"), Answered("the cat sat")) == 1.0
    perfect = measured_together("bleu", ["the cat sat on the mat"], ["the cat sat on the mat"], rounds=10)
    assert perfect.value == pytest.approx(100)
    assert measured_together("chrf", ["the cat"], ["dog"], rounds=10).value < 20


def test_intervals_hold_the_mean_and_shrink_with_the_number() -> None:
    few, many = measured([0.0, 1.0] * 5), measured([0.0, 1.0] * 500)
    assert few.low < few.value < few.high
    assert many.high - many.low < few.high - few.low
    assert measured([1.0] * 3) == Measured(1.0, 1.0, 1.0, (1.0, 1.0, 1.0))
    assert measured([0.0, 1.0] * 5, seed=1) == measured([0.0, 1.0] * 5, seed=1)


def test_a_paired_difference_sees_what_each_question_says() -> None:
    one, two = [0.0, 1.0] * 20, [0.2, 1.0] * 20
    found = difference(one, two)
    assert found.value == pytest.approx(0.1)
    assert found.low > 0


def test_reports_have_every_figure_and_plot_what_shares_an_axis() -> None:
    columns = [Column("a<b", {"f1": Measured(0.5, 0.4, 0.6), "bleu": Measured(30, 20, 40)}), Column("c", {"f1": Measured(1, 1, 1)})]
    text = markdown("T", ["fact"], columns)
    assert "| f1 | 0.5 (0.4 to 0.6) | 1 (1 to 1) |" in text
    assert "| bleu | 30 (20 to 40) |  |" in text
    whole = page("T", ["fact"], columns)
    assert "a&lt;b" in whole
    assert whole.count("<svg") == 1
    assert "http" not in whole.partition("<svg")[0]


def test_a_perplexity_lies_within_its_interval_however_long_the_answers() -> None:
    found = perplexity([(300.0, 100), (1.0, 1), (1.2, 1), (0.9, 1)])
    assert found.low <= found.value <= found.high
    assert perplexity([(2.0, 2)] * 3).value == pytest.approx(2.71828, abs=1e-4)


@pytest.mark.parametrize(
    ("expected_text", "grade"), [("4", "4"), (" 3.", "3"), ("Grade: 5", "5"), ("4/5", "4"), ("10/10", None), ("4/10", None)]
)
def test_grades_are_read_strictly(expected_text: str, grade: str | None) -> None:
    found = _DIGIT.match(expected_text)
    assert (found and found[1]) == grade


@pytest.mark.parametrize(
    ("expected_text", "vote"), [("A", "A"), ("Answer B.", "B"), ("**b**", "b"), ("tie", "tie"), ("both", None)]
)
def test_votes_are_read_strictly(expected_text: str, vote: str | None) -> None:
    found = _VOTE.match(expected_text)
    assert (found and found[1]) == vote


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(0, 2, 0.0, 0.6576), (2, 2, 0.3424, 1.0), (1, 1, 0.2065, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_the_interval_of_a_proportion_is_wilsons(right: int, count: int, low: float, high: float) -> None:
    """The last one is of R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    found = proportion([1.0] * right + [0.0] * (count - right))
    assert (found.value, found.low, found.high) == (right / count, pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_few_questions_are_warned_of() -> None:
    assert (len(few_questions(2)), few_questions(100)) == (1, ())
