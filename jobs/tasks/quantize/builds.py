"""Builds of one checkpoint, each made and measured once: they and their figures are kept in the job's folder until it has ended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from jobs.task import JobFailure, TaskContext
from jobs.tasks.benchmark.closed_loop import decode_speed
from jobs.tasks.checkpoints import StagedProgress
from jobs.tasks.quantize.calibration import Examples
from jobs.tasks.quantize.parameters import BuildResult
from model_registry.conversion.formats.checkpoint.importer import CheckpointImporter, open_checkpoint
from model_registry.conversion.importer import ImportOptions
from model_registry.conversion.measure.calibration import TEXT
from model_registry.conversion.measure.perplexity import Texts, divergence, folder_logits, folder_perplexity, text_windows
from model_registry.conversion.measure.quality import measurable_tokens, measurable_windows, source_perplexity
from model_registry.conversion.quantizers.mixing import Unit, mix, units
from model_registry.conversion.quantizers.recipe import HALF_BITS, Recipe
from model_registry.conversion.source import Floats
from model_registry.records import Precision

_DAMAGE_TOKENS = 256  # a divergence needs fewer than a perplexity
_EXAMPLE_TOKENS = 8192  # most of an example is its question, which is read and does not count
_FOLDER = "builds"
_ROUNDS = 2  # of speeds, the builds in turn: what else the machine does then slows none alone


class Builds:
    """checkpoint: what they are made of. examples: of the task that they are measured on and rounded for, instead of shipped texts.

    Raises JobFailure when the model is too large to be measured here.
    """

    def __init__(self, checkpoint: Path, context: TaskContext, examples: Examples | None = None) -> None:
        self.context = context
        self._checkpoint = checkpoint
        self._kept = context.folder / "measured.jsonl"
        self._folder = context.folder / _FOLDER
        self._folder.mkdir(exist_ok=True)
        self._source = open_checkpoint(checkpoint)
        self.architecture = self._source.architecture
        self._examples = examples
        if examples is None:
            self._measured = Texts(measurable_windows(self._source, checkpoint))
            self._guiding = Texts(text_windows(checkpoint, TEXT, _DAMAGE_TOKENS, self.architecture.context_length))
        else:
            self._measured = examples.measured(measurable_tokens(self._source, _EXAMPLE_TOKENS))
            self._guiding = examples.guiding()
        self._predicted: list[Floats] | None = None
        if not self._measured.windows:
            message = "The model is too large to measure its perplexity here, so that builds cannot be compared."
            raise JobFailure(message, code="too_large")

    def units(self) -> list[Unit]:
        """The parts of the model that may get 4 bits."""
        return units(self._source)

    def kept(self, name: str, measure: Callable[[], Any]) -> Any:
        """A JSON value: as it was kept under the name, or measured now and kept."""
        rows = [json.loads(line) for line in self._kept.read_text().splitlines()] if self._kept.exists() else []
        for row in rows:
            if row["name"] == name:
                return row["value"]
        value = measure()
        beside = self._kept.with_suffix(".new")
        beside.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"name": name, "value": value}]))
        beside.replace(self._kept)
        return value

    def build(self, name: str, recipe: Recipe) -> Path:
        """The folder of the build; `parameters` has the importer's decisions."""
        precision = Precision.FP32 if recipe.bits >= HALF_BITS else Precision.INT8
        options = ImportOptions(precision, measure=False, recipe=recipe)
        provenance: dict[str, str] = {}
        if self._examples is not None:
            options = replace(options, calibration=self._guiding.windows)
            provenance["calibration_sha256"] = self._examples.sha256

        def write(folder: Path) -> None:
            self.context.reporter.message(f"Building {name}.")
            imported = CheckpointImporter().run(self._checkpoint, folder, options, StagedProgress(self.context))
            self.kept(f"parameters of {name}", lambda: dict(imported.parameters) | provenance)

        return self.made(name, write)

    def parameters(self, name: str) -> Mapping[str, Any]:
        """The parameters of a build."""
        return dict(self.kept(f"parameters of {name}", dict))

    def made(self, name: str, write: Callable[[Path], None]) -> Path:
        """A folder that is whole, and stays as long as the job's own."""
        folder, beside = self._folder / name, self._folder / f"{name}.new"
        if not folder.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            write(beside)
            beside.rename(folder)
        return folder

    def ratio(self, name: str, folder: Path) -> float:
        """The build's perplexity over the source's."""

        def measure() -> float:
            self.context.stage("measuring the perplexity")
            return folder_perplexity(folder, self._measured.windows, self.context.threads, self._measured.counts)

        return float(self.kept(f"perplexity of {name}", measure)) / self.source()

    def source(self) -> float:
        """The source's perplexity."""

        def measure() -> float:
            self.context.stage("measuring the source")
            return source_perplexity(self._source, self._measured.windows, self._measured.counts)

        return float(self.kept("perplexity of the source", measure))

    def damage(self, name: str, build: Path, other: Path, matrices: Sequence[str]) -> float:
        """How far predictions move on the guiding texts when these matrices are the other's; in nats per token."""

        def measure() -> float:
            work = self._folder / "damaged"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            mix(build, other, work, matrices, is_exact=True)
            return divergence(self._truth(build), self._predictions(work))

        return float(self.kept(f"damage of {name}", measure))

    def _truth(self, build: Path) -> list[Floats]:
        """What the build predicts of the guiding texts, its products exact."""
        if self._predicted is None:
            exact = self.made("exact", lambda folder: mix(build, build, folder, (), is_exact=True))
            self._predicted = list(self._predictions(exact))
        return self._predicted

    def _predictions(self, folder: Path) -> Iterator[Floats]:
        """What the build in the folder predicts where it counts, [tokens, vocabulary] of each text."""
        return self._guiding.predicting(folder_logits(folder, self._guiding.windows, self.context.threads))

    def measured(self, folders: Mapping[str, Path]) -> list[BuildResult]:
        """What each is worth, by its name."""
        ratios = {name: self.ratio(name, folder) for name, folder in folders.items()}
        speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in folders}
        for number in range(_ROUNDS):
            for name, folder in folders.items():
                one, eight = self.kept(f"speed of {name}, {number}", partial(decode_speed, folder, self.context))
                speeds[name].append((one, eight))
        best = {name: (max(one for one, _ in found), max(eight for _, eight in found)) for name, found in speeds.items()}
        return [BuildResult(name, ratios[name], _size_bytes(folder), best[name]) for name, folder in folders.items()]


def remove_builds(context: TaskContext) -> None:
    """What was kept for a job that may be interrupted."""
    shutil.rmtree(context.folder / _FOLDER, ignore_errors=True)


def _size_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
