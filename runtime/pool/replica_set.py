"""The replicas of one model: which of them serve, and which gets a request. Knows no lease, and starts nothing by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator

from runtime.pool.generation import Answer, Generation, Inquiry
from runtime.pool.loaded_model import ModelState
from runtime.pool.replica import Replica
from runtime.pool.routing import ReplicaLoad, choose_replica, prefix_blocks
from runtime.protocol.errors import NotReady
from runtime.protocol.messages import ModelInfo, Submit


class ReplicaSet:
    def __init__(self) -> None:
        self._replicas: list[Replica] = []

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._replicas)

    def __len__(self) -> int:
        return len(self._replicas)

    def add(self, replica: Replica) -> None:
        self._replicas.append(replica)

    def remove(self, replica: Replica) -> None:
        self._replicas.remove(replica)

    @property
    def serving(self) -> list[Replica]:
        return [replica for replica in self._replicas if replica.state is ModelState.READY]

    @property
    def loads(self) -> list[asyncio.Task[ModelInfo]]:
        """Of each replica, the load in progress or the last one."""
        return [replica.loading for replica in self._replicas]

    def submit(self, message: Submit) -> Generation:
        """On the serving replica that suits the prompt best; one must serve. Raises as `WorkerHandle.submit`."""
        serving = self.serving
        if len(serving) == 1:
            return serving[0].worker().submit(message)
        blocks = prefix_blocks(message.prompt)
        chosen = serving[choose_replica([ReplicaLoad(each.num_open, each.seen.num_matched(blocks)) for each in serving])]
        generation = chosen.worker().submit(message)
        chosen.seen.remember(blocks)
        return generation

    def inquire(self, message: Inquiry) -> Awaitable[Answer]:
        """On the serving replica with the least to do; one must serve. Raises as `WorkerHandle.inquire`."""
        return min(self.serving, key=lambda replica: replica.num_open).worker().inquire(message)

    async def unload(self, grace_s: float, reason: NotReady) -> None:
        """Lets open requests finish for grace_s, then ends them with `reason`, and the workers with them."""
        await asyncio.gather(*(replica.unload(grace_s, reason) for replica in self._replicas))
