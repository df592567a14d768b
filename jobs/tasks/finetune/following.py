"""A callback of transformers' trainer that reports its progress to a job, and stops it with the job."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from jobs.task import Stopped, StopReason, TaskContext

_WHOLE = "whole"  # a mark in checkpoints that were written to their end
_REPORTED = frozenset(
    (
        *("loss", "learning_rate", "grad_norm", "epoch", "num_tokens", "mean_token_accuracy"),
        *("eval_loss", "eval_mean_token_accuracy", "eval_rewards/accuracies", "rewards/accuracies", "rewards/margins"),
    )
)


class Follower(TrainerCallback):
    """A pause ends after the step with a checkpoint; a cancel ends within the step."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._obey(control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._obey(control)
        if self._context.reporter.stop is StopReason.PAUSE:
            control.should_save = control.should_training_stop = True

    def on_prediction_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._obey(control)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if figures := figures_in(logs or {}):
            self._context.reporter.progress(state.global_step, state.max_steps, figures, "steps")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        (folder / _WHOLE).touch()
        self._context.reporter.checkpoint(state.global_step, folder, {})

    def _obey(self, control: TrainerControl) -> None:
        if self._context.reporter.stop is StopReason.CANCEL:
            raise Stopped(StopReason.CANCEL)


class KeepingFollower(Follower):
    """For a trainer that another library builds: keeps its log.

    log_history: that of transformers' state, once the training has ended.
    """

    def __init__(self, context: TaskContext) -> None:
        super().__init__(context)
        self.log_history: list[dict[str, Any]] = []

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.log_history = list(state.log_history)


def figures_in(logs: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a trainer's log that concern a job's owner."""
    return {name: float(value) for name, value in logs.items() if name in _REPORTED and math.isfinite(float(value))}


def last_checkpoint(folder: Path) -> Path | None:
    """The newest that is whole; those that are not are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in found:
        if not (path / _WHOLE).exists():
            shutil.rmtree(path)
    whole = [path for path in found if path.exists()]
    return whole[-1] if whole else None
