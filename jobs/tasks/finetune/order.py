"""The order of examples: shuffled per epoch, neighbours of like length so that little is padded, the same after every restart.

Imports PyTorch: only inside a job's process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from trl.trainer.dpo_trainer import DPOTrainer

_MEGABATCH = 50  # batches that are sorted among themselves


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
    """TRL's, in this order, on token ids of our own: TRL would encode texts anew, and end answers twice."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        answers = zip(dataset["prompt_ids"], dataset["chosen_ids"], dataset["rejected_ids"], strict=True)
        lengths = [len(prompt) + max(len(chosen), len(rejected)) for prompt, chosen, rejected in answers]
        return LengthGroupedOrder(lengths, self.args.train_batch_size, self.args.seed)
