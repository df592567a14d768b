"""Builds TRL's trainer from a job's params, and runs it. Imports PyTorch: only inside a job's process."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from jobs.task import InvalidJob, JobFailure, Problem, Stopped, TaskContext
from jobs.tasks.finetune.estimate import trainer_settings
from jobs.tasks.finetune.material import Material
from jobs.tasks.finetune.parameters import FinetuneParams, Method
from jobs.tasks.vendors.hugging_face import be_offline, in_four_bits

LOSSES = "slmops.losses"  # the group of entry points
KEPT = frozenset(("loss", "mean_token_accuracy", "eval_loss", "eval_mean_token_accuracy", "rewards/accuracies", "rewards/margins"))


@dataclass(frozen=True, slots=True)
class Trained:
    """model: a transformers or a PEFT model, still in memory; None when a backend left its adapter in a folder.

    metrics: the last of each. history: of every log.
    """

    model: Any
    adapter: Path | None
    metrics: dict[str, float]
    history: list[dict[str, float]]

    def save_adapter(self, folder: Path) -> None:
        """Writes the adapter of a low-rank tuning in PEFT's layout."""
        if self.adapter is None:
            self.model.save_pretrained(folder)
        else:
            shutil.copytree(self.adapter, folder)
        (folder / "README.md").unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Teacher:
    """checkpoint: with the student's vocabulary. alpha: the part of its logits in the loss; temperature: of both distributions."""

    checkpoint: Path
    alpha: float
    temperature: float


def train(
    params: FinetuneParams,
    checkpoint: Path,
    training: Material,
    validation: Material | None,
    context: TaskContext,
    teacher: Teacher | None = None,
) -> Trained:
    """checkpoint: the base. teacher: whose logits are learned too, for supervised tuning.

    Goes on from the newest checkpoint in the job's folder. Raises Stopped, JobFailure.
    """
    be_offline()
    import torch

    from jobs.tasks.finetune.following import Follower, last_checkpoint

    torch.set_num_threads(context.threads)
    context.stage("loading the model")
    trainer = build_trainer(params, checkpoint, training, validation, context, Follower(context), teacher)
    folder = context.folder / "checkpoints"
    context.stage("training")
    last = last_checkpoint(folder)
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    if context.reporter.stop is not None:
        raise Stopped(context.reporter.stop)
    metrics, history = figures_of(trainer.state.log_history)
    return Trained(trainer.model, None, metrics, history)


def figures_of(log_history: list[dict[str, Any]]) -> tuple[dict[str, float], list[dict[str, float]]]:
    """(the last of each, those of every log) of what transformers' trainer logged. Raises JobFailure when the loss diverged."""
    from jobs.tasks.finetune.following import figures_in

    metrics: dict[str, float] = {}
    history = [figures_in(entry) | {"step": entry["step"]} for entry in log_history if figures_in(entry)]
    for entry in history:
        metrics |= {name: value for name, value in entry.items() if name in KEPT}
    if not math.isfinite(next((entry["loss"] for entry in reversed(log_history) if "loss" in entry), 0.0)):
        raise JobFailure("The loss became infinite or no number. Lower learning_rate.", code="diverged")
    return metrics, history


def uses_bf16(params: FinetuneParams) -> bool:
    """Whether arithmetic is done in bfloat16: where it was requested, or the CPU has instructions for it."""
    if params.precision != "auto":
        return params.precision == "bf16"
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def loss_named(name: str) -> Any:
    """(outputs, labels, num_items_in_batch) -> loss. Raises InvalidJob."""
    found = {each.name: each for each in entry_points(group=LOSSES)}
    if name not in found:
        known = f"there are {', '.join(sorted(found))}" if found else f"no installed package has entry points {LOSSES!r}"
        raise InvalidJob([Problem(f"There is no loss {name!r}; {known}.", param="loss")])
    return found[name].load()


def build_trainer(
    params: FinetuneParams,
    checkpoint: Path,
    training: Material,
    validation: Material | None,
    context: TaskContext,
    follower: Any,
    teacher: Teacher | None,
) -> Any:
    """A trainer of TRL's, ready to run; `follower`: its callback."""
    import torch
    from transformers import AutoModelForCausalLM, EarlyStoppingCallback, set_seed

    from jobs.tasks.finetune.supervised import Collator, LogitsTrainer, OrderedDPOTrainer, SupervisedTrainer

    set_seed(params.seed)
    bf16 = uses_bf16(params)
    dtype = torch.bfloat16 if bf16 and params.method is not Method.FULL else torch.float32
    four_bits = in_four_bits(dtype) if params.method is Method.QLORA else None
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, quantization_config=four_bits, trust_remote_code=False)
    tokenizer = _tokenizer(checkpoint)
    shared: dict[str, Any] = {
        "model": model,
        "args": _arguments(params, training, context, has_validation=validation is not None, bf16=bf16),
        "train_dataset": _dataset(training),
        "eval_dataset": None if validation is None else _dataset(validation),
        "processing_class": tokenizer,
        "peft_config": None if params.method is Method.FULL else _lora(params),
        "callbacks": [follower, *([EarlyStoppingCallback(params.early_stopping)] if params.early_stopping else [])],
    }
    if params.objective == "dpo":
        return _learning_in_full(OrderedDPOTrainer(**shared))
    shared["data_collator"] = Collator(tokenizer.pad_token_id)
    if teacher is not None:
        precision = torch.bfloat16 if bf16 else torch.float32
        theirs = AutoModelForCausalLM.from_pretrained(teacher.checkpoint, dtype=precision, trust_remote_code=False)
        return _learning_in_full(LogitsTrainer(**shared, teacher=theirs, alpha=teacher.alpha, temperature=teacher.temperature))
    return _learning_in_full(SupervisedTrainer(**shared, custom_loss=loss_named(params.loss) if params.loss else None))


def _tokenizer(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _learning_in_full(trainer: Any) -> Any:
    """TRL rounds adapters of a base in 4 bits to bfloat16, in which AdamW's small steps are lost; a CPU gains nothing by it."""
    for weight in trainer.model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    return trainer


def _arguments(params: FinetuneParams, training: Material, context: TaskContext, *, has_validation: bool, bf16: bool) -> Any:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.sft_config import SFTConfig

    settings = trainer_settings(params, training, context.folder / "checkpoints", has_validation=has_validation) | {
        "max_length": None,  # longer examples were refused
        "bf16": bf16,
        "restore_callback_states_from_checkpoint": True,  # early stopping's patience outlives a kill
    }
    if params.early_stopping:
        settings |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
        every = params.evaluate_every
        settings |= {"save_steps": every} if every else {"save_strategy": "epoch"}
    if params.objective == "dpo":
        return DPOConfig(**settings, beta=params.beta)
    return SFTConfig(**settings, packing=False, remove_unused_columns=False)


def _lora(params: FinetuneParams) -> Any:
    from peft import LoraConfig, TaskType

    return LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha or 2 * params.rank,
        lora_dropout=params.dropout,
        target_modules=params.targets,
        use_dora=params.method is Method.DORA,
        task_type=TaskType.CAUSAL_LM,
    )


def _dataset(material: Material) -> Any:
    from datasets import Dataset

    rows: list[dict[str, Any]]
    if material.preferences:
        names = ("prompt_ids", "chosen_ids", "rejected_ids")
        rows = [{name: getattr(each, name) for name in names} for each in material.preferences]
    else:
        rows = [asdict(each) for each in material.packed]
        rows = rows or [{"input_ids": each.input_ids, "labels": each.labels} for each in material.tokens]
    return Dataset.from_list(rows)
