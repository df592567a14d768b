"""What builds are measured on, and what guides their rounding: texts that slmops ships, or examples of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.task import InvalidJob, Problem
from jobs.tasks.finetune.material import read_material
from jobs.tasks.finetune.rendering import IGNORED, Renderer, Tokens
from model_registry.conversion.measure.perplexity import Ids, Texts

GUIDING_TOKENS = 1536  # a rounding is guided by fewer tokens than a perplexity needs
LONGEST = 1024  # tokens of an example, whose logits are in memory at once


@dataclass(frozen=True, slots=True)
class Examples:
    """A task's examples as the model is served them. sha256: of their file. longest: of an example, in tokens; the end is read.

    left_out: a sentence for each reason for which lines are not used.
    """

    tokens: Sequence[Tokens]
    sha256: str
    longest: int = LONGEST
    left_out: tuple[str, ...] = ()

    def measured(self, num_tokens: int) -> Texts:
        """Every other example, as many as begin within num_tokens."""
        return self._texts(self.tokens[0::2], num_tokens)

    def guiding(self) -> Texts:
        """The examples that `measured` leaves out: the text that a rounding was fitted to cannot measure it."""
        return self._texts(self.tokens[1::2], GUIDING_TOKENS)

    def _texts(self, examples: Sequence[Tokens], num_tokens: int) -> Texts:
        """The examples as windows, in which only the tokens of answers count."""
        windows: list[Ids] = []
        counts: list[NDArray[np.bool_]] = []
        total = 0
        for example in examples:
            if total >= num_tokens:
                break
            ids, labels = example.input_ids[-self.longest :], example.labels[-self.longest :]
            windows.append(np.array(ids, np.int64))
            counts.append(np.array(labels) != IGNORED)
            total += len(ids)
        return Texts(windows, counts)


def read_examples(path: str, served: Path) -> Examples:
    """served: the folder of the variant that is served. Raises InvalidJob with everything that is wrong with the file."""
    renderer = Renderer(served)
    material = read_material(Path(path).expanduser(), renderer)
    if len(material.tokens) < 2:
        raise InvalidJob([Problem("Calibration takes at least two examples; hundreds are better.", param="calibration", file=path)])
    return Examples(material.tokens, material.sha256, min(LONGEST, renderer.context_length), material.left_out)
