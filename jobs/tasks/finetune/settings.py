"""What both backends tell transformers' trainer, whatever else they add. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.tasks.finetune import estimate
from jobs.tasks.finetune.material import Material, Sizes
from jobs.tasks.finetune.parameters import FinetuneParams


def num_steps(params: FinetuneParams, training: Material | Sizes) -> int:
    """Of the whole tuning: those of its epochs, or max_steps if these are fewer."""
    return estimate.num_steps(training.num_rows, params.batch_size, params.gradient_accumulation, params.epochs, params.max_steps)


def trainer_settings(params: FinetuneParams, training: Material, folder: Path, *, has_validation: bool) -> dict[str, Any]:
    """Fields of transformers' TrainingArguments. folder: of checkpoints."""
    steps = num_steps(params, training)
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": params.batch_size,
        "per_device_eval_batch_size": params.batch_size,
        "gradient_accumulation_steps": params.gradient_accumulation,
        "gradient_checkpointing": params.gradient_checkpointing,
        "learning_rate": params.rate,
        "lr_scheduler_type": params.schedule,
        "warmup_steps": int(params.warmup_ratio * steps),  # rounded down: the first step of a warm-up, at rate 0, teaches nothing
        "weight_decay": params.weight_decay,
        "max_grad_norm": params.max_grad_norm,
        "use_cpu": True,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "steps",
        "save_steps": params.checkpoint_every,
        "save_total_limit": 2,
        "seed": params.seed,
        "data_seed": params.seed,
        "dataloader_pin_memory": False,
    }
    if has_validation:
        every = params.evaluate_every
        settings |= {"eval_strategy": "steps", "eval_steps": every} if every else {"eval_strategy": "epoch"}
    return settings
