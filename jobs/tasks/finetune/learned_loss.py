"""Cross entropy of what is learned alone: the head is computed where there is a label, and its logits are not kept.

The head of a small model with a large vocabulary is a fifth of its arithmetic, and most tokens of a conversation are prompts. The
gradient follows from the same logits (as in https://arxiv.org/abs/2410.10989), so they are computed once. Imports PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

_CHUNK_BYTES = 64 << 20  # of logits at a time
_SCALES = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")


@dataclass(frozen=True, slots=True)
class Learned:
    """loss: summed over labels, with its gradient. num_right: labels that were the likeliest; num_labels: all."""

    loss: torch.Tensor
    num_right: torch.Tensor
    num_labels: torch.Tensor


def is_plain(causal: Any) -> bool:
    """Whether logits are hidden states times the head's matrix, and nothing else. causal: transformers' model with a head."""
    config = causal.config.get_text_config()
    head: Any = causal.get_output_embeddings()
    if any(getattr(config, name, None) is not None for name in _SCALES):
        return False
    return bool(head.__class__ is torch.nn.Linear and head.bias is None)


def learned(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, ignored: int) -> Learned:
    """hidden: [batch, tokens, width]; weight: the head's, [vocabulary, width]; labels: [batch, tokens], not shifted."""
    targets = labels[:, 1:]
    is_learned = targets != ignored
    rows, picked = hidden[:, :-1][is_learned], targets[is_learned]
    has_gradient = torch.is_grad_enabled()
    wanted = (has_gradient and rows.requires_grad, has_gradient and weight.requires_grad)
    apply: Any = _SummedLoss.apply
    loss, num_right = apply(rows, weight, picked, wanted)
    return Learned(loss, num_right, is_learned.sum())


class _SummedLoss(torch.autograd.Function):
    """(summed loss, number of labels that were likeliest) of rows [labels, width]. wanted: gradients of (rows, weight)."""

    @staticmethod
    def forward(ctx: Any, rows: Any, weight: Any, labels: Any, wanted: tuple[bool, bool]) -> tuple[Any, Any]:
        total, num_right = rows.new_zeros((), dtype=torch.float32), labels.new_zeros(())
        by_rows = torch.empty_like(rows) if wanted[0] else None
        by_weight = torch.zeros_like(weight) if wanted[1] else None
        size = max(1, _CHUNK_BYTES // (4 * len(weight)))
        for begin in range(0, len(labels), size):
            part, target = rows[begin : begin + size], labels[begin : begin + size]
            logits = (part @ weight.T).float()
            at_target = logits.gather(1, target[:, None])[:, 0]
            peak, best = logits.max(dim=1)
            sums = logits.sub_(peak[:, None]).exp_().sum(dim=1)
            total += (sums.log() + peak - at_target).sum()
            num_right += (best == target).sum()
            if not any(wanted):
                continue
            slope = logits.div_(sums[:, None])
            slope[torch.arange(len(target)), target] -= 1
            slope = slope.to(part.dtype)
            if by_rows is not None:
                by_rows[begin : begin + size] = slope @ weight
            if by_weight is not None:
                by_weight += slope.T @ part
        ctx.gradients = by_rows, by_weight
        ctx.mark_non_differentiable(num_right)
        return total, num_right

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> tuple[Any, Any, None, None]:
        by_rows, by_weight = ctx.gradients
        factor = slopes[0]
        return (
            None if by_rows is None else by_rows * factor.to(by_rows.dtype),
            None if by_weight is None else by_weight * factor.to(by_weight.dtype),
            None,
            None,
        )
