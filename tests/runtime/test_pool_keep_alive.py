"""How long models stay in memory when nobody asks for them."""

from __future__ import annotations

import psutil
import pytest

from runtime.pool.loaded_model import FOREVER, Left, UnloadReason
from tests.doubles.event_loops import run
from tests.doubles.pool_bench import (
    PATIENCE_S,
    departures_of,
    first_chunk,
    gone,
    new_pool,
    process_pool,
    spec_of,
    start_chat,
    text_of,
)

pytestmark = pytest.mark.api

TREE_SLACK_BYTES = 16 << 20


@pytest.mark.parametrize("case", ["in its settings", "in a request", "in a later request"])
def test_without_a_keep_alive_a_model_leaves_after_its_last_answer(case: str) -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            left = departures_of(pool)
            spec = spec_of("brief:1", keep_alive_s=0.0 if case == "in its settings" else 600.0)
            if case == "in a later request":
                (await pool.acquire(spec, timeout_s=PATIENCE_S)).release()
            requested = None if case == "in its settings" else 0.0
            with await pool.acquire(spec, timeout_s=PATIENCE_S, keep_alive_s=requested) as lease:
                answer = start_chat(lease, "[[count: 5]]")
                await first_chunk(answer)
                assert pool.loaded()[0].expires_at is None
                assert (await text_of(answer)).endswith("5")
            assert await left.get() == Left("brief:1", UnloadReason.EXPIRED)
            assert pool.loaded() == ()
            gone(lease.info.pid)

    run(scenario)


def test_a_request_may_keep_a_model_for_ever_that_would_have_left() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            spec = spec_of("brief:1", keep_alive_s=0.0)
            with (
                await pool.acquire(spec, timeout_s=PATIENCE_S),
                await pool.acquire(spec, timeout_s=PATIENCE_S, keep_alive_s=FOREVER),
            ):
                pass
            (model,) = pool.loaded()
            assert (model.keep_alive_s, model.expires_at) == (FOREVER, None)
            assert model.idle_since is not None

    run(scenario)


def test_a_pinned_model_stays_until_it_is_unpinned() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            left = departures_of(pool)
            (await pool.acquire(spec_of("kept:1", keep_alive_s=0.0, pinned=True), timeout_s=PATIENCE_S)).release()
            assert pool.loaded()[0].expires_at is None
            assert pool.pin("kept:1", False)
            assert (await left.get()).unload_reason is UnloadReason.EXPIRED
            assert not pool.pin("kept:1", True)

    run(scenario)


def test_memory_comes_back_with_every_unload() -> None:
    """The daemon's whole process tree, after each of five rounds; no worker is left, nor what would become one."""

    def tree() -> tuple[int, int]:
        me = psutil.Process()
        family = [me, *me.children(recursive=True)]
        return len(family), sum(process.memory_info().rss for process in family)

    async def scenario() -> None:
        async with process_pool() as pool:
            seen = []
            for _ in range(6):
                with await pool.acquire(spec_of("round:1"), timeout_s=PATIENCE_S) as lease:
                    assert await text_of(start_chat(lease, "[[count: 40]]"))
                assert await pool.unload("round:1", grace_s=PATIENCE_S)
                seen.append(tree())
            num_processes, resident_bytes = zip(*seen, strict=True)
            assert len(set(num_processes)) == 1
            assert max(resident_bytes[1:]) - resident_bytes[0] < TREE_SLACK_BYTES
            assert resident_bytes[-1] - resident_bytes[1] < TREE_SLACK_BYTES // 4

    run(scenario)
