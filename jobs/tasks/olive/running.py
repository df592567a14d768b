"""Runs a workflow of Olive, and makes what it leaves servable.

Olive's log goes to the job's, its passes become stages, its failures ours. What it made becomes variants that can be registered,
or a reason why it stays a file.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.task import JobFailure, Stopped, TaskContext
from jobs.tasks.checkpoints import StagedProgress, build, is_adapter, merged, save_weights
from jobs.tasks.convert.built import quality
from jobs.tasks.convert.pickles import is_checkpoint
from jobs.tasks.olive.workflow import pass_types
from model_registry.artifacts import StagedVariant
from model_registry.conversion.formats.onnx.importer import GENAI_CONFIG, OnnxFolderImporter
from model_registry.conversion.importer import ImportOptions
from model_registry.errors import UnsupportedModel
from model_registry.records import GraphKind, Precision

_PASS = "Running pass %s:%s"  # noqa: S105 (Olive's words for it, no secret)
_EVALUATION = ("Run model evaluation", "Evaluating")
_KEPT = frozenset({".safetensors", ".json", ".jinja", ".model", ".txt"})


class Follower(logging.Handler):
    """Follows Olive's log. last_error: its last message about a failure, since Olive may not raise one."""

    def __init__(self, context: TaskContext, num_passes: int) -> None:
        super().__init__(logging.INFO)
        self._context = context
        self._num_passes = num_passes
        self._num_begun = 0
        self.last_error: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == _PASS and isinstance(record.args, tuple):
            self._context.stage(f"pass {record.args[0]} ({record.args[1]})")
            total = self._num_passes if self._num_begun <= self._num_passes else None  # a search runs them again and again
            self._context.progress(self._num_begun, total, unit="passes")
            self._num_begun += 1
        elif str(record.msg).startswith(_EVALUATION):
            self._context.stage("evaluating")
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            self.last_error = f"{type(error).__name__}: {_first_line(error)}"


def run_workflow(olive: Any, workflow: Mapping[str, Any], context: TaskContext) -> Any:
    """Olive's WorkflowOutput, with at least one model. What is in the cache already is not made again.

    Raises JobFailure, Stopped.
    """
    with _followed(context, workflow) as follower:
        try:
            output = olive.run(dict(workflow))
        except (Stopped, MemoryError, ImportError):
            raise
        except Exception as error:
            context.check()
            raise _failure(f"{type(error).__name__}: {_first_line(error)}") from error
    context.check()  # Olive swallows what its log raises
    if not output.has_output_model():
        raise _failure(follower.last_error or "it gave no reason")
    return output


@contextmanager
def _followed(context: TaskContext, workflow: Mapping[str, Any]) -> Iterator[Follower]:
    follower = Follower(context, sum(1 for _ in pass_types(workflow)))
    logger = logging.getLogger("olive")
    logger.addHandler(follower)
    try:
        yield follower
    finally:
        logger.removeHandler(follower)


def _failure(why: str) -> JobFailure:
    return JobFailure(f"Olive made no model ({why}). The job's log has the output of each pass.", code="olive_failed")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "no reason")


@dataclass(frozen=True, slots=True)
class Made:
    """One model that Olive made, at its path. adapter: beside a checkpoint. metrics: Olive's own, by name."""

    path: Path
    adapter: Path | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent


@dataclass(frozen=True, slots=True)
class Servable:
    """The arguments of an `Output`."""

    variants: tuple[StagedVariant, ...]
    architecture: str
    context_length: int
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]


def made_of(model: Any) -> Made:
    """model: Olive's ModelOutput."""
    config = model.model_config
    adapter = config.get("adapter_path")
    found = {name: each.get("value") for name, each in (model.metrics_value or {}).items()}
    metrics = {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
    return Made(Path(model.model_path), Path(adapter) if adapter else None, metrics)


def servable(made: Made, source: Path | None, staging: Path, context: TaskContext) -> Servable:
    """Written into `staging`. source: the checkpoint that the workflow began from, if it is here.

    Raises UnsupportedModel with the reason why it is none, CorruptModel, Stopped.
    """
    if made.adapter is not None:
        return _with_adapter(made, made.adapter, staging, context)
    if (made.folder / GENAI_CONFIG).is_file():
        return _onnx(made, source, staging, context)
    if is_checkpoint(made.folder):
        weights = staging / "checkpoint"
        _copy(made.folder, weights)
        return _built(made, weights, staging, context)
    raise UnsupportedModel(f"{made.path.name} has no {GENAI_CONFIG} beside it, which serving needs (ModelBuilder writes one).")


def _onnx(made: Made, source: Path | None, staging: Path, context: TaskContext) -> Servable:
    folder = staging / "served"
    folder.mkdir()
    progress = StagedProgress(context)
    _mend_logits(made.folder)
    imported = OnnxFolderImporter().run(made.folder, folder, ImportOptions(), progress)
    metrics: dict[str, float] = {}
    if source is not None and imported.provider_family == "cpu" and imported.graph is GraphKind.GQA:
        metrics = quality(source, folder, imported.context_length, context.threads, progress)
    variants = (StagedVariant(imported.precision, imported.provider_family, folder, graph=imported.graph),)
    return Servable(variants, imported.architecture, imported.context_length, imported.parameters, {**metrics, **made.metrics})


def _mend_logits(folder: Path) -> None:
    """Olive's rounding passes rename the output of the product that they round (`logits_Q4`), but not in genai_config.json."""
    import onnx

    decoder = json.loads((folder / GENAI_CONFIG).read_text(encoding="utf-8")).get("model", {}).get("decoder", {})
    path, wanted = folder / str(decoder.get("filename", "")), decoder.get("outputs", {}).get("logits", "logits")
    if not path.is_file():
        return  # the import reports what is wrong
    graph = onnx.load_model(path, load_external_data=False)
    outputs = {value.name: value for value in graph.graph.output}
    renamed = [name for name in outputs if re.fullmatch(re.escape(wanted) + r"_Q\d+", name)]
    if wanted in outputs or len(renamed) != 1:
        return
    outputs[renamed[0]].name = wanted
    for node in graph.graph.node:
        node.output[:] = [wanted if name == renamed[0] else name for name in node.output]
    onnx.save_model(graph, path)


def _with_adapter(made: Made, adapter: Path, staging: Path, context: TaskContext) -> Servable:
    """Merged, as a tuning's is, with the adapter beside it."""
    if not is_adapter(adapter):
        raise UnsupportedModel(f"{adapter.name} is no adapter in PEFT's layout with safetensors.")
    context.stage("merging the adapter")
    weights, own = staging / "checkpoint", staging / "adapter"
    _copy(adapter, own)
    save_weights(merged(made.folder, adapter), made.folder, weights)
    return _built(made, weights, staging, context, StagedVariant.adapter(own))


def _copy(source: Path, folder: Path) -> None:
    """Weights, configuration and tokenizer; never code."""
    folder.mkdir()
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix in _KEPT:
            shutil.copyfile(file, folder / file.name)


def _built(made: Made, weights: Path, staging: Path, context: TaskContext, *others: StagedVariant) -> Servable:
    found = build(context, weights, staging, Precision.AUTO)
    variants = (*found.variants, *others)
    return Servable(variants, found.architecture, found.context_length, found.parameters, {**found.metrics, **made.metrics})
