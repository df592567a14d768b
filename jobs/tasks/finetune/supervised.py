"""Supervised tuning: TRL's trainer in our order, on rows that may hold several examples, with the loss of what is learned alone.

Imports PyTorch: only inside a job's process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler
from trl.trainer.sft_trainer import SFTTrainer

from jobs.tasks.finetune.learned_loss import is_plain, learned
from jobs.tasks.finetune.order import LengthGroupedOrder
from jobs.tasks.finetune.rendering import IGNORED

Loss = Callable[..., Any]  # (outputs, labels, num_items_in_batch) -> loss
INPUTS = ("input_ids", "attention_mask", "position_ids")


@dataclass(frozen=True, slots=True)
class Collator:
    """Rows to tensors. Packed ones have position_ids and no mask: attention finds the borders where positions begin anew."""

    pad_id: int

    def __call__(self, rows: Sequence[Mapping[str, list[int]]]) -> dict[str, torch.Tensor]:
        batch = {"input_ids": _padded(rows, "input_ids", self.pad_id), "labels": _padded(rows, "labels", IGNORED)}
        batch["num_tokens"] = torch.tensor(sum(len(row["input_ids"]) for row in rows))
        if rows[0].get("position_ids") is not None:
            return batch | {"position_ids": _padded(rows, "position_ids", 0)}
        ones = [{"ones": [1] * len(row["input_ids"])} for row in rows]
        return batch | {"attention_mask": _padded(ones, "ones", 0)}


def _padded(rows: Sequence[Mapping[str, list[int]]], name: str, value: int) -> torch.Tensor:
    return pad_sequence([torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=value)


class SupervisedTrainer(SFTTrainer):
    """custom_loss: instead of cross entropy; it gets the outputs with all logits."""

    def __init__(self, *args: Any, custom_loss: Loss | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._custom_loss = custom_loss
        model: Any = self.accelerator.unwrap_model(self.model)
        self.causal = model.get_base_model() if hasattr(model, "get_base_model") else model

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in cast(Any, dataset)["input_ids"]]
        return LengthGroupedOrder(lengths, self.args.train_batch_size, self.args.seed)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        labels = inputs["labels"]
        known = {name: inputs[name] for name in INPUTS if name in inputs} | {"use_cache": False}
        outputs = None
        if self._custom_loss is not None:
            outputs = model(**known)
            loss = self._custom_loss(outputs, labels, num_items_in_batch=num_items_in_batch)
            self.note(_right_of(outputs.logits, labels), inputs["num_tokens"])
        elif is_plain(self.causal):
            with self.accelerator.autocast():
                hidden = self.causal.base_model(**known).last_hidden_state
                found = learned(hidden, self.causal.get_output_embeddings().weight, labels, IGNORED)
            loss = found.loss / (found.num_labels.clamp(min=1) if num_items_in_batch is None else num_items_in_batch)
            self.note((found.num_right, found.num_labels), inputs["num_tokens"])
        else:
            theirs: Any = super().compute_loss
            return theirs(model, known | {"labels": labels}, return_outputs, num_items_in_batch)
        return (loss, outputs or {"loss": loss}) if return_outputs else loss

    def note(self, right: tuple[Any, Any], num_tokens: Any) -> None:
        """Under the names that TRL's trainer logs."""
        mode = "train" if self.causal.training else "eval"
        num_right, num_labels = (int(number) for number in right)
        self._metrics[mode]["mean_token_accuracy"].append(num_right / max(1, num_labels))
        if mode == "train":
            self._total_train_tokens += int(num_tokens)
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]


def _right_of(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(labels that were the likeliest, all)."""
    targets = labels[:, 1:]
    is_learned = targets != IGNORED
    return (logits[:, :-1].argmax(-1) == targets)[is_learned].sum(), is_learned.sum()
