"""Olive's fine-tuning passes as another backend: our token ids in, an adapter in PEFT's layout out.

What of our params Olive has no word for is refused in `parameters`. Called at the pass, not through Olive's engine, which wants a
workflow around it. Imports Olive inside functions.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobs.task import InvalidJob, JobFailure, Problem, Stopped, TaskContext
from jobs.tasks.finetune.estimate import trainer_settings
from jobs.tasks.finetune.material import Material
from jobs.tasks.finetune.parameters import FinetuneParams, Method
from jobs.tasks.finetune.trainer import Trained, figures_of, uses_bf16
from jobs.tasks.vendors.olive import import_olive
from model_registry.lora import MODULES

_ROWS = "slmops_rows"  # the name under which Olive finds our data
_PASSES = {Method.LORA: "LoRA", Method.DORA: "DoRA", Method.QLORA: "QLoRA"}


def check_olive() -> None:
    """Raises InvalidJob when Olive is not installed."""
    if find_spec("olive") is None:
        message = "backend olive needs the package olive-ai. Install it with `pip install 'slmops[olive]'`."
        raise InvalidJob([Problem(message, param="backend", code="missing_package")])


def train_with_olive(
    params: FinetuneParams, checkpoint: Path, training: Material, validation: Material | None, context: TaskContext
) -> Trained:
    """Like `trainer.train`, but its adapter is a folder. Resumes from the newest checkpoint in the job's folder."""
    os.environ["HF_DATASETS_CACHE"] = str(context.folder / "datasets")  # else the data would be kept under the user's home
    import_olive(context.folder / "scratch")
    import olive.passes.pytorch.lora as passes
    import torch
    from olive.data.registry import Registry
    from olive.passes.olive_pass import create_pass_from_dict
    from transformers import set_seed
    from transformers import trainer as callers

    from jobs.tasks.finetune.following import KeepingFollower, last_checkpoint

    parts = {"training": _rows(training), "validation": _rows(validation) if validation else []}
    Registry.register_dataset(_ROWS)(lambda part, **_: parts[part])
    last = last_checkpoint(context.folder / "checkpoints")
    config = _config(params, bf16=uses_bf16(params))
    config["training_args"] = _arguments(params, training, context, last, has_validation=validation is not None)
    if validation is not None:
        config["eval_data_config"] = _data("validation")
    made = create_pass_from_dict(getattr(passes, _PASSES[params.method]), config, disable_search=True)
    _check_all_taken(config["training_args"], made.config.training_args)
    torch.set_num_threads(context.threads)
    set_seed(params.seed)
    follower = KeepingFollower(context)
    context.stage("training")
    callbacks: list[Any] = callers.DEFAULT_CALLBACKS
    callbacks.append(follower)  # Olive builds transformers' trainer itself, and takes no callbacks
    try:
        made.run(_model(checkpoint), str(context.folder / "olive"))
    finally:
        callbacks.remove(follower)
    if context.reporter.stop is not None:
        raise Stopped(context.reporter.stop)
    metrics, history = figures_of(follower.log_history)
    return Trained(None, context.folder / "olive" / "adapter", metrics, history)


def _model(checkpoint: Path) -> Any:
    from olive.model import HfModelHandler

    class Padded(HfModelHandler):  # type: ignore[misc]
        """Olive pads with the tokenizer's padding token, which some have not; a mask hides it anyway."""

        def get_hf_tokenizer(self) -> Any:
            tokenizer = super().get_hf_tokenizer()
            tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
            return tokenizer

    return Padded(model_path=str(checkpoint), task="text-generation", load_kwargs={"trust_remote_code": False})


def _rows(material: Material) -> list[dict[str, list[int]]]:
    masks = ([1] * len(each.input_ids) for each in material.tokens)
    return [
        {"input_ids": each.input_ids, "attention_mask": mask, "labels": each.labels}
        for each, mask in zip(material.tokens, masks, strict=True)
    ]


def _config(params: FinetuneParams, *, bf16: bool) -> dict[str, Any]:
    """Of the pass: every setting is given, since Olive's own defaults are others."""
    return {
        "r": params.rank,
        "alpha": float(params.alpha or 2 * params.rank),
        "lora_dropout": params.dropout,
        "target_modules": list(MODULES) if params.targets == "all-linear" else params.targets,
        "torch_dtype": "bfloat16" if bf16 else "float32",
        "device_map": None,
        "train_data_config": _data("training"),
    }


def _data(part: str) -> dict[str, Any]:
    return {"name": part, "load_dataset_config": {"type": _ROWS, "params": {"part": part}}}


def _arguments(
    params: FinetuneParams, training: Material, context: TaskContext, last: Path | None, *, has_validation: bool
) -> dict[str, Any]:
    """The arguments of transformers' trainer, in Olive's form."""
    settings = trainer_settings(params, training, context.folder / "checkpoints", has_validation=has_validation)
    return settings | {"resume_from_checkpoint": str(last) if last else None, "warmup_ratio": 0.0, "optim": "adamw_torch"}


def _check_all_taken(requested: dict[str, Any], taken: Any) -> None:
    """Olive leaves out, with a warning, what this version of transformers does not know. Raises JobFailure."""
    known = {**taken.model_dump(), **taken.extra_args}
    if missing := sorted(name for name, value in requested.items() if known.get(name) != value):
        raise JobFailure(f"Olive does not take {', '.join(missing)} here. Choose backend trl.", code="unsupported_setting")
