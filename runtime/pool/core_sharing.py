"""How many threads each worker computes with, so that together they take each core once.

Two workers that each use every core run at two thirds of the speed that they reach with half the cores each, because threads that
wait spin. So cores are shared out among the workers with work to do. A worker without any keeps the share that it would have
if it joined them: when its request comes, it is ready.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from runtime.pool.resident_model import ResidentModel

SETTLE_S = 5.0  # a model that has been idle for so long gives its cores to the others


def share_cores(num_cores: int, workers: Sequence[bool]) -> tuple[int, ...]:
    """Pure: threads per worker, each at least 1. workers: whether each is active, in order of their age."""
    num_active = sum(workers)
    shares, rank = [], 0
    for is_active in workers:
        num_sharing = num_active if is_active else num_active + 1
        extra = 1 if is_active and rank < num_cores % num_sharing else 0
        rank += is_active
        shares.append(max(1, num_cores // num_sharing + extra))
    return tuple(shares)


def share_for_newcomers(num_cores: int, models: Iterable[ResidentModel], num_newcomers: int) -> int:
    """What each of so many more workers begins with."""
    present = [_is_active(model) for model in models for _ in model.replicas]
    return share_cores(num_cores, [*present, *[True] * num_newcomers])[-1]


def share_out(num_cores: int, models: Iterable[ResidentModel]) -> None:
    """Gives each worker its share of the cores, unless the operator set its threads."""
    replicas = [(model, replica) for model in models for replica in model.replicas]
    shares = share_cores(num_cores, [_is_active(model) for model, _ in replicas])
    for (model, replica), share in zip(replicas, shares, strict=True):
        if model.spec.options.threads == 0:
            replica.set_threads(share)


def _is_active(model: ResidentModel) -> bool:
    return model.is_busy or time.monotonic() - model.last_used < SETTLE_S
