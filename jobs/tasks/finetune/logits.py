"""Learning from a teacher's distributions beside the right tokens (https://arxiv.org/abs/1503.02531).

Imports PyTorch: only inside a job's process.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional

from jobs.tasks.finetune.learned_loss import is_plain
from jobs.tasks.finetune.rendering import IGNORED
from jobs.tasks.finetune.supervised import INPUTS, SupervisedTrainer


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
