"""Many models in one memory budget: who loads, who leaves, who waits, who is refused."""

from __future__ import annotations

import asyncio

import pytest

from runtime.pool import load_queue
from runtime.pool.capacity import Budget, PoolLimits
from runtime.pool.loaded_model import Left, LoadedModel, LoadSpec, ModelState, PoolEvent, UnloadReason
from runtime.pool.model_pool import ModelPool
from runtime.protocol.errors import NotReady
from tests.doubles.event_loops import run
from tests.doubles.pool_bench import MIB, PATIENCE_S, first_chunk, gone, new_pool, spec_of, start_chat, text_of

pytestmark = pytest.mark.api

TWO_MODELS = PoolLimits(Budget(1 << 40, max_models=2))
ONE_MODEL = PoolLimits(Budget(1 << 40, max_models=1))
A, B, C = (spec_of(f"{name}:1") for name in "abc")


def labels(pool: ModelPool) -> list[str]:
    return [model.spec.label for model in pool.loaded()]


def view_of(pool: ModelPool, label: str) -> LoadedModel:
    return next(model for model in pool.loaded() if model.spec.label == label)


async def expected_text(pool: ModelPool, spec: LoadSpec, text: str) -> str:
    with await pool.acquire(spec, timeout_s=PATIENCE_S) as lease:
        return await text_of(start_chat(lease, text))


def test_the_least_recently_used_makes_room_and_is_loaded_again_on_request() -> None:
    async def scenario() -> None:
        async with new_pool(TWO_MODELS) as pool:
            events: list[PoolEvent] = []
            pool.listeners.append(events.append)
            for spec in (A, B, A, C):  # B was used before A
                assert await expected_text(pool, spec, spec.label) == f"You said: {spec.label}"
            assert sorted(labels(pool)) == ["a:1", "c:1"]
            assert [event for event in events if isinstance(event, Left)] == [Left("b:1", UnloadReason.EVICTED)]
            assert await expected_text(pool, B, "back") == "You said: back"
            assert sorted(labels(pool)) == ["b:1", "c:1"]

    run(scenario)


def test_a_model_that_cannot_fit_is_refused_with_the_arithmetic_and_moves_nobody() -> None:
    async def scenario() -> None:
        async with new_pool(PoolLimits(Budget(500 * MIB))) as pool:
            (await pool.acquire(A, timeout_s=PATIENCE_S)).release()
            with pytest.raises(NotReady, match=r"huge:1 needs 600 MiB = .* of the memory budget of 500 MiB") as caught:
                await pool.acquire(spec_of("huge:1", mib=600), timeout_s=PATIENCE_S)
            assert caught.value.code == "insufficient_memory"
            assert "Raise memory_budget" in str(caught.value)
            assert labels(pool) == ["a:1"]

    run(scenario)


def test_a_busy_or_pinned_model_is_never_evicted() -> None:
    async def scenario() -> None:
        async with new_pool(ONE_MODEL) as pool:
            with await pool.acquire(A, timeout_s=PATIENCE_S):
                with pytest.raises(NotReady, match=r"beside a:1 64 MiB \(busy\).*max_loaded_models") as caught:
                    await pool.acquire(B, timeout_s=0.0)
                assert caught.value.retry_after_s
                assert pool.waiting() == ()
            pool.pin(A.label, True)
            with pytest.raises(NotReady, match=r"\(pinned\)"):
                await pool.acquire(B, timeout_s=PATIENCE_S)  # at once: waiting would not help
            assert labels(pool) == ["a:1"]
            pool.pin(A.label, False)
            assert await expected_text(pool, B, "room") == "You said: room"

    run(scenario)


def test_two_loads_that_wait_are_served_in_order_when_the_busy_model_is_done() -> None:
    async def scenario() -> None:
        async with new_pool(ONE_MODEL) as pool:
            lease = await pool.acquire(A, timeout_s=PATIENCE_S)
            order: list[str] = []

            async def use(spec: LoadSpec) -> None:
                with await pool.acquire(spec, timeout_s=PATIENCE_S):
                    order.append(spec.label)

            async with asyncio.TaskGroup() as group:
                for spec in (B, C):
                    group.create_task(use(spec))
                    await asyncio.sleep(0)
                assert pool.waiting() == ("b:1", "c:1")
                lease.release()
            assert order == ["b:1", "c:1"]

    run(scenario)


def test_a_waiting_load_gets_its_turn_although_the_busy_model_is_in_constant_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients whose requests overlap, so that the model is never idle by itself. None of them fails."""

    async def scenario() -> None:
        async with new_pool(ONE_MODEL) as pool:
            served, done = [0], asyncio.Event()

            async def keep_asking() -> None:
                while not done.is_set():
                    assert await expected_text(pool, A, "[[count: 9]][[delay: 0.002]]") == "1 2 3 4 5 6 7 8 9"
                    served[0] += 1

            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(keep_asking())
                (await pool.acquire(A, timeout_s=PATIENCE_S)).release()
                assert await expected_text(pool, B, "my turn") == "You said: my turn"
                before = served[0]
                assert await expected_text(pool, B, "again") == "You said: again"
                while served[0] < before + 8:  # and they get theirs
                    await asyncio.wait_for(expected_text(pool, A, "go on"), PATIENCE_S)
                done.set()

    monkeypatch.setattr(load_queue, "TURN_S", 0.1)
    run(scenario)


def test_two_loads_at_once_do_not_take_the_same_room() -> None:
    """Each fits alone, both do not: the second waits until the first has been used."""

    async def scenario() -> None:
        async with new_pool(PoolLimits(Budget(100 * MIB))) as pool:
            leases = await asyncio.gather(*(expected_text(pool, spec_of(f"{name}:1", mib=60), name) for name in "abc"))
            assert leases == [f"You said: {name}" for name in "abc"]
            assert len(pool.loaded()) == 1

    run(scenario)


def test_a_load_learns_what_its_model_really_takes() -> None:
    async def scenario() -> None:
        async with new_pool(PoolLimits(Budget(1 << 40))) as pool:
            lease = await pool.acquire(spec_of("a:1", mib=2), timeout_s=PATIENCE_S)
            await first_chunk(start_chat(lease, "[[count: 20]]"))
            lease.release()
            model = view_of(pool, "a:1")
            assert model.stats is not None
            assert model.charge_bytes == model.stats.resident_bytes - model.stats.kv_bytes + MIB

    run(scenario)


def test_a_model_that_is_evicted_in_the_moment_it_is_requested_is_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first waiter has been given the model, but has not resumed yet, when the model leaves; the second request comes just
    after.
    """

    async def scenario() -> None:
        async with new_pool(ONE_MODEL) as pool:
            old = await pool.acquire(A, timeout_s=PATIENCE_S)
            gives_up = asyncio.create_task(pool.acquire(B, timeout_s=PATIENCE_S))
            await asyncio.sleep(0)
            early = asyncio.create_task(expected_text(pool, A, "early"))
            await asyncio.sleep(0)
            assert pool.waiting() == ("b:1", "a:1")

            async def evict_and_request() -> str:
                assert pool.waiting() == (), "the early one has been given the model"
                old.release()
                other = asyncio.create_task(expected_text(pool, C, "other"))
                await asyncio.sleep(0)
                assert view_of(pool, "a:1").state is ModelState.UNLOADING
                assert not early.done()
                late = await expected_text(pool, A, "late")
                assert await other == "You said: other"
                return late

            gives_up.cancel()
            assert await asyncio.create_task(evict_and_request()) == "You said: late"
            assert await early == "You said: early"
            gone(old.info.pid)

    monkeypatch.setattr(load_queue, "TURN_S", 0.0)
    run(scenario)
