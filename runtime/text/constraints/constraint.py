"""The interface of a row's constraint. Knows no grammar and no model."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.protocol.errors import Field


class Constraint(Protocol):
    """The state of one row's constraint: which tokens may follow those it has seen. One thread calls everything.

    The order of calls, per token: `allowed`, then `accept`; then `forced`, and `accept` for each token that it names.
    """

    def allowed(self) -> NDArray[np.uint8] | None:
        """The tokens that may come next, a bit for each: uint8 [ceil(vocab / 8)], the lowest bit first (`bitorder="little"`).

        None: all. End-of-sequence tokens are allowed where the answer may end. Valid until the next call.
        """
        ...

    def accept(self, token: int) -> None:
        """The token was chosen. What may follow is worked out from here on in the background, while the model runs.

        Raises ConstraintBroken for a token that was not allowed, or when the grammar outgrows its limits.
        """
        ...

    def forced(self) -> list[int]:
        """Tokens of which nothing else may come next, in order; empty where there is a choice. Never an end-of-sequence token."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether the answer must end here, without an end-of-sequence token."""
        ...


class ConstraintBroken(Exception):
    """A row's constraint cannot go on. The message never quotes the answer."""


class GrammarTooComplex(ConstraintBroken):
    """The grammar outgrew a limit while it was followed: it is at fault, and the same answer meets the limit again.

    field: the part of the request that the grammar came in.
    """

    def __init__(self, message: str, field: Field) -> None:
        super().__init__(message)
        self.field = field
