"""Metrics of answers, from 0 to 1 unless stated otherwise, with confidence intervals.

Pure; BLEU, chrF and ROUGE come from their libraries.
"""

from __future__ import annotations

import json
import math
import random
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.tasks.evaluate.questions import Answered, Call, Question

LEAST_QUESTIONS = 100  # below that, a proportion is known to ten hundredths at best
_ROUNDS = 500  # of the bootstrap
_Z = 1.959964  # of the normal distribution, two-sided, 95 %
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True, slots=True)
class Measured:
    """A value with its 95 % confidence interval. scores: of each example; None for metrics of the whole set only."""

    value: float
    low: float
    high: float
    scores: tuple[float, ...] | None = None


Score = Callable[[Question, Answered], float]


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and further spaces (SQuAD, https://arxiv.org/abs/1606.05250)."""
    plain = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", plain).split())


def exact_match(question: Question, answered: Answered) -> float:
    return float(normalised(answered.text) == normalised(question.answer))


def accuracy(question: Question, answered: Answered) -> float:
    """The answer begins with the label, whatever explanation follows."""
    label, actual = normalised(question.answer).split(), normalised(answered.text).split()
    return float(bool(label) and actual[: len(label)] == label)


def f1(question: Question, answered: Answered) -> float:
    """The F1 score of the answer's words against the reference's."""
    right, actual = normalised(question.answer).split(), normalised(answered.text).split()
    same = sum((Counter(right) & Counter(actual)).values())
    if not right or not actual:
        return float(right == actual)
    precision, recall = same / len(actual), same / len(right)
    return 2 * precision * recall / (precision + recall) if same else 0.0


def last_number(question: Question, answered: Answered) -> float:
    """The last number of both is the same, as GSM8K is scored."""
    right, actual = (re.findall(r"-?\d[\d,]*\.?\d*", text) for text in (question.answer, answered.text))
    return float(bool(right) and bool(actual) and _number(right[-1]) == _number(actual[-1]))


def json_validity(question: Question, answered: Answered) -> float:
    """Whether it is JSON; of the same keys, where the reference is an object."""
    try:
        actual = json.loads(answered.text)
    except ValueError:
        return 0.0
    try:
        right = json.loads(question.answer)
    except ValueError:
        return 1.0
    return float(not isinstance(right, dict) or (isinstance(actual, dict) and actual.keys() == right.keys()))


def tool_call_match(question: Question, answered: Answered) -> float:
    """The right calls, in any order, with equal arguments; none where none is right."""
    right = [_canonical(call) for call in question.calls or ()]
    actual = [_canonical(call) for call in answered.calls]
    return float(sorted(right) == sorted(actual))


PROPORTIONS = frozenset(("exact_match", "accuracy", "last_number", "json_validity", "tool_call_match"))  # right or wrong, each
SCORES: Mapping[str, Score] = {
    "exact_match": exact_match,
    "accuracy": accuracy,
    "f1": f1,
    "last_number": last_number,
    "json_validity": json_validity,
    "tool_call_match": tool_call_match,
}


def bleu(right: Sequence[str], actual: Sequence[str]) -> float:
    """0 to 100; sacrebleu's defaults."""
    import sacrebleu

    return float(sacrebleu.corpus_bleu(list(actual), [list(right)]).score)


def chrf(right: Sequence[str], actual: Sequence[str]) -> float:
    """0 to 100; sacrebleu's chrF2."""
    import sacrebleu

    return float(sacrebleu.corpus_chrf(list(actual), [list(right)]).score)


CORPUS: Mapping[str, Callable[[Sequence[str], Sequence[str]], float]] = {"bleu": bleu, "chrf": chrf}


def rouge_l(question: Question, answered: Answered) -> float:
    """F-measure of the longest common subsequence, with stemming, as Google's rouge-score computes it."""
    from rouge_score.rouge_scorer import RougeScorer

    return float(RougeScorer(["rougeL"], use_stemmer=True).score(question.answer, answered.text)["rougeL"].fmeasure)


def proportion(scores: Sequence[float]) -> Measured:
    """The part of ones among zeros and ones, with Wilson's score interval: of few questions, it says how little they say.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927). At least one score.
    """
    count, part = len(scores), sum(scores) / len(scores)
    middle = (part + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    reach = _Z / (1 + _Z**2 / count) * math.sqrt(part * (1 - part) / count + _Z**2 / (4 * count**2))
    return Measured(part, max(0.0, middle - reach), min(1.0, middle + reach), tuple(scores))


def few_questions(count: int) -> tuple[str, ...]:
    """A warning where so many questions say little."""
    questions = "1 question says" if count == 1 else f"{count} questions say"
    return (f"{questions} little: at least {LEAST_QUESTIONS} are advised.",) if count < LEAST_QUESTIONS else ()


def measured(scores: Sequence[float], seed: int = 0) -> Measured:
    """Their mean, with a bootstrap's interval."""
    count = len(scores)
    chance = random.Random(seed)  # noqa: S311 - resampling, not secrets
    means = sorted(sum(chance.choices(scores, k=count)) / count for _ in range(_ROUNDS))
    return Measured(sum(scores) / count, means[int(0.025 * _ROUNDS)], means[int(0.975 * _ROUNDS)], tuple(scores))


def measured_together(metric: str, right: Sequence[str], actual: Sequence[str], seed: int = 0, rounds: int = 100) -> Measured:
    """A metric that only all answers together have."""
    of = CORPUS[metric]
    chance = random.Random(seed)  # noqa: S311 - resampling, not secrets
    drawn = [chance.choices(range(len(right)), k=len(right)) for _ in range(rounds)]
    values = sorted(of([right[i] for i in each], [actual[i] for i in each]) for each in drawn)
    return Measured(of(right, actual), values[int(0.025 * rounds)], values[int(0.975 * rounds)])


def perplexity(losses: Sequence[tuple[float, int]], seed: int = 0) -> Measured:
    """losses: of each question, the sum over its tokens in nats, and their number. Longer answers weigh more."""

    def of(places: Sequence[int]) -> float:
        return math.exp(sum(losses[place][0] for place in places) / max(1, sum(losses[place][1] for place in places)))

    places = range(len(losses))
    chance = random.Random(seed)  # noqa: S311 - resampling, not secrets
    values = sorted(of(chance.choices(places, k=len(losses))) for _ in range(_ROUNDS))
    return Measured(of(places), values[int(0.025 * _ROUNDS)], values[int(0.975 * _ROUNDS)])


def difference(one: Sequence[float], two: Sequence[float], seed: int = 0) -> Measured:
    """The excess of two's mean over one's, on the same questions in the same order, by a paired bootstrap."""
    return measured([b - a for a, b in zip(one, two, strict=True)], seed)


def _number(text: str) -> float:
    return float(text.replace(",", "").rstrip("."))


def _canonical(call: Call | tuple[str, Mapping[str, Any] | None]) -> str:
    name, arguments = call
    return json.dumps([name, _with_plain_numbers(arguments)], sort_keys=True)


def _with_plain_numbers(value: Any) -> Any:
    """JSON knows one kind of number: 1.0 is 1."""
    if isinstance(value, Mapping):
        return {key: _with_plain_numbers(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_with_plain_numbers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
