"""TRL's trainers in our order, on rows that may hold several examples, with losses of what is learned alone.

`LogitsTrainer` learns from a teacher's distributions beside the right tokens (https://arxiv.org/abs/1503.02531). The order
is shuffled per epoch, with neighbours of like length so that little is padded, and is the same after every restart. Imports
PyTorch: only inside a job's process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_trainer import SFTTrainer

from jobs.tasks.finetune.learned_loss import is_plain, learned
from jobs.tasks.finetune.rendering import IGNORED

Loss = Callable[..., Any]  # (outputs, labels, num_items_in_batch) -> loss
INPUTS = ("input_ids", "attention_mask", "position_ids")
_MEGABATCH = 50  # batches that are sorted among themselves


@dataclass(frozen=True, slots=True)
class Collator:
    """Rows to tensors. Packed ones have position_ids and no mask: attention finds the borders where positions restart."""

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


class LogitsTrainer(SupervisedTrainer):
    """loss = (1 - alpha) cross entropy + alpha temperature^2 KL(teacher, student), over what is learned."""

    def __init__(self, *args: Any, teacher: Any, alpha: float, temperature: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._teacher = teacher.eval().requires_grad_(requires_grad=False)
        self._alpha = alpha
        self._temperature = temperature

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        labels = inputs["labels"][:, 1:]
        learned = labels != IGNORED
        known = {name: inputs[name] for name in INPUTS if name in inputs} | {"use_cache": False}
        with self.accelerator.autocast():
            mine = _logits_at(self.causal, known, learned)
            with torch.no_grad():
                theirs = _logits_at(self._teacher, known, learned)
        count = learned.sum() if num_items_in_batch is None else num_items_in_batch
        hard = functional.cross_entropy(mine, labels[learned], reduction="sum")
        scale = self._temperature
        softened, target = (functional.log_softmax(logits / scale, dim=-1) for logits in (mine, theirs))
        soft = functional.kl_div(softened, target, reduction="sum", log_target=True) * scale**2
        loss = ((1 - self._alpha) * hard + self._alpha * soft) / count
        self.note(((mine.argmax(-1) == labels[learned]).sum(), learned.sum()), inputs["num_tokens"])
        return (loss, {"loss": loss}) if return_outputs else loss


def _logits_at(causal: Any, known: dict[str, Any], learned: torch.Tensor) -> torch.Tensor:
    """[what is learned, vocabulary]: the head is computed for nothing else, where it is a plain one."""
    logits: torch.Tensor
    if is_plain(causal):
        hidden = causal.base_model(**known).last_hidden_state[:, :-1][learned]
        logits = causal.get_output_embeddings()(hidden)
    else:
        logits = causal(**known).logits[:, :-1][learned]
    return logits.float()


class LengthGroupedOrder(Sampler[int]):
    """lengths: tokens of each example. The epoch alone, with the seed, decides the order."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        shuffled = torch.randperm(len(self._lengths), generator=generator).tolist()
        size = self._batch_size * _MEGABATCH
        grouped = [
            index
            for start in range(0, len(shuffled), size)
            for index in sorted(shuffled[start : start + size], key=self._lengths.__getitem__, reverse=True)
        ]
        batches = [grouped[start : start + self._batch_size] for start in range(0, len(grouped), self._batch_size)]
        whole = len(grouped) // self._batch_size
        order = [*torch.randperm(whole, generator=generator).tolist(), *range(whole, len(batches))]
        return (index for number in order for index in batches[number])


class OrderedDPOTrainer(DPOTrainer):
    """TRL's, in this order, on token ids of our own: TRL would encode texts again, and end answers twice."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        answers = zip(dataset["prompt_ids"], dataset["chosen_ids"], dataset["rejected_ids"], strict=True)
        lengths = [len(prompt) + max(len(chosen), len(rejected)) for prompt, chosen, rejected in answers]
        return LengthGroupedOrder(lengths, self.args.train_batch_size, self.args.seed)
