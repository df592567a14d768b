"""Constraints by a plan that a test writes down: which tokens are free, which are forced, and whether an end token must follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.protocol.request import Grammar, GrammarKind
from runtime.text.constraints.constraint import ConstraintBroken

Place = frozenset[int]


class PlannedConstraint:
    """places: at each, the tokens of which one must come. Checks that it is called by the rules of the protocol.

    announces: whether it returns forced tokens. breaks_at: the place at which it gives up.
    """

    def __init__(
        self, places: list[Place], *, vocab_size: int, eos: int | None = None, announces: bool = True, breaks_at: int | None = None
    ) -> None:
        self.places = places
        self.accepted: list[int] = []
        self.num_masks = 0
        self._vocab_size = vocab_size
        self._eos = eos
        self._announces = announces
        self._breaks_at = breaks_at

    def allowed(self) -> NDArray[np.uint8]:
        assert not self.is_complete, "called after the end"
        self.num_masks += 1
        bits = np.zeros(self._vocab_size, np.uint8)
        place = len(self.accepted)
        bits[[*self.places[place]] if place < len(self.places) else [self._eos]] = 1
        return np.packbits(bits, bitorder="little")

    def accept(self, token: int) -> None:
        if len(self.accepted) == self._breaks_at:
            raise ConstraintBroken("too large")
        assert token in self.places[len(self.accepted)], "a token that was not allowed"
        self.accepted.append(token)

    def forced(self) -> list[int]:
        tokens = []
        for place in self.places[len(self.accepted) :] if self._announces else []:
            if len(place) > 1:
                break
            tokens += place
        return tokens

    @property
    def is_complete(self) -> bool:
        return self._eos is None and len(self.accepted) == len(self.places)


class PlanCompiler:
    """Grammars are plans: a JSON list of places, each a list of tokens. `made`: the constraints, in order."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self.made: list[PlannedConstraint] = []

    def compile(self, grammar: Grammar) -> Callable[[], PlannedConstraint]:
        plan = json.loads(grammar.source)
        places = [frozenset(place) for place in plan.pop("places")]

        def make() -> PlannedConstraint:
            self.made.append(PlannedConstraint(places, vocab_size=self._vocab_size, **plan))
            return self.made[-1]

        return make


def planned(*places: tuple[int, ...], **about: Any) -> Grammar:
    """A place of one token is forced. about: as PlannedConstraint takes it."""
    return Grammar(kind=GrammarKind.LARK, source=json.dumps({"places": places, **about}))
