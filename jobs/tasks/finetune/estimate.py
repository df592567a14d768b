"""How long a tuning takes, its memory, and its steps and settings in the words of transformers' trainer. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.tasks.finetune.material import Material, Sizes
from jobs.tasks.finetune.parameters import FinetuneParams

_FLOPS_PER_THREAD = 45e9  # of training steps in bf16 on a core with AVX-512, measured on SmolLM2-135M
_FLOPS = {"full": 6, "lora": 4.5, "dora": 5.5, "qlora": 5}  # per weight and token, forward and backward
_BYTES = {"full": 18, "lora": 4.5, "dora": 5, "qlora": 0.6}  # per weight: weights, gradients, moments; qlora: without embeddings
_LIBRARIES_BYTES = 700 << 20


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a model: num_weights with embeddings, hidden_size, num_layers, vocab_size."""

    num_weights: int
    hidden_size: int
    num_layers: int
    vocab_size: int


def steps_per_epoch(num_examples: int, batch_size: int, accumulation: int) -> int:
    """The last one may be of fewer examples."""
    return math.ceil(math.ceil(num_examples / batch_size) / accumulation)


def seconds(shape: Shape, method: str, num_tokens: float, threads: int) -> float:
    """num_tokens: of all passes together."""
    return num_tokens * shape.num_weights * _FLOPS[method] / (_FLOPS_PER_THREAD * max(1, threads)) + 20


def memory_bytes(shape: Shape, method: str, batch_tokens: int, *, checkpointing: bool) -> int:
    """batch_tokens: of the largest batch, padding included."""
    kept = 2 if checkpointing else 34  # https://arxiv.org/abs/2205.05198: bytes per token, layer and unit of width, in bf16
    activations = batch_tokens * shape.hidden_size * shape.num_layers * kept
    logits = min(batch_tokens, 4096) * shape.vocab_size * 8
    embeddings = shape.hidden_size * shape.vocab_size if method == "qlora" else 0  # stay in float32
    weights = (shape.num_weights - embeddings) * _BYTES[method] + embeddings * 4
    return int(_LIBRARIES_BYTES + weights + activations + logits)


def num_steps(params: FinetuneParams, training: Material | Sizes) -> int:
    """Optimizer steps of the whole tuning: those of its epochs, or max_steps if these are fewer."""
    per_epoch = steps_per_epoch(training.num_rows, params.batch_size, params.gradient_accumulation)
    return min(max(1, math.ceil(per_epoch * params.epochs)), params.max_steps or 2**62)


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
