"""How fast a build answers on this machine, quickly: tokens per second for one client and for eight."""

from __future__ import annotations

from pathlib import Path

from jobs.task import TaskContext
from jobs.tasks.benchmark.closed_loop import ClosedLoop
from jobs.tasks.benchmark.load import Load
from jobs.tasks.evaluate.local_model import LocalModel

_ROUNDS, _TOKENS = 3, 64
_NUM_CLIENTS = (1, 8)


def decode_speed(folder: Path, context: TaskContext) -> tuple[float, float]:
    """The best of some rounds, since what else the machine does only slows. Raises ValueError when it cannot run here."""
    context.stage("measuring the speed")
    model = LocalModel(folder, context)
    best: list[float] = []
    try:
        loop = ClosedLoop(model.engine, context.check, ignore_eos=True)
        for clients in _NUM_CLIENTS:
            load = Load(num_clients=clients, num_requests=clients, max_tokens=_TOKENS)
            best.append(max(loop.measure(load).tokens_per_s for _ in range(_ROUNDS)))
    finally:
        model.close()
    return best[0], best[1]
