"""The contract of `WorkerHandle`, held by a local process and by the double that tests of the pool use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from runtime.pool import handle
from runtime.pool.generation import Generation
from runtime.pool.handle import WorkerFactory, WorkerHandle
from runtime.pool.local import LocalWorkers
from runtime.protocol.errors import EngineDead, Field, InvalidRequest, NotReady
from runtime.protocol.events import Chunk, Event, Finished, Started
from runtime.protocol.messages import Detokenize, Detokenized, EngineOptions, Load, Submit, Tokenize, Tokenized
from runtime.protocol.request import ChatPrompt, TextPrompt
from tests.doubles.event_loops import LOOPS, run
from tests.doubles.fake_worker import FakeWorkers
from tests.doubles.pool_bench import first_chunk, text_of

pytestmark = pytest.mark.api

LOAD = Load(engine="fake", folder="", options=EngineOptions(num_slots=2))
FACTORIES: dict[str, tuple[Callable[[], WorkerFactory], str]] = {
    **{f"local, {loop}": (LocalWorkers, loop) for loop in LOOPS},
    "fake": (FakeWorkers, "asyncio"),
}


class Bench:
    """A watched worker and, in their order, the events that its owner and its callers have noticed."""

    def __init__(self, worker: WorkerHandle) -> None:
        self.worker = worker
        self.noticed: list[str] = []
        self._last_id = 0
        worker.watch(on_exit=self._exited, on_finished=lambda: self.noticed.append("finished"))

    def _exited(self) -> None:
        assert self.worker.has_exited
        self.noticed.append("exit")

    def new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def send(self, text: str) -> Generation:
        prompt = ChatPrompt(messages=[{"role": "user", "content": text}])
        return self.worker.submit(Submit(request=self.new_id(), prompt=prompt))

    async def tokens_of(self, text: str) -> list[int]:
        answer = await self.worker.inquire(Tokenize(request=self.new_id(), prompt=TextPrompt(text=text)))
        assert isinstance(answer, Tokenized)
        return answer.token_ids

    async def end_of(self, generation: Generation) -> None:
        """Reads to the end, and records it."""
        try:
            await text_of(generation)
        except EngineDead:
            self.noticed.append("caller")


class Contract:
    """Runs a scenario with a worker of the tested kind, of which nothing may be left afterwards."""

    def __init__(self, start: WorkerFactory, loop: str) -> None:
        self.start = start
        self.loop = loop

    def __call__(self, scenario: Callable[[Bench], object]) -> None:
        async def whole() -> None:
            before = set(psutil.Process().children())
            bench = Bench(await self.start("fake:1", LOAD))
            try:
                await scenario(bench)  # type: ignore[misc]
            finally:
                bench.worker.kill()
                await bench.worker.reap()
            assert bench.worker.num_open == 0
            assert set(psutil.Process().children()) <= before

        run(whole, self.loop)


@pytest.fixture(params=FACTORIES)
def contract(request: pytest.FixtureRequest) -> Contract:
    make, loop = FACTORIES[request.param]
    return Contract(make(), loop)


# ---- requests ----


def test_a_started_worker_has_loaded(contract: Contract) -> None:
    async def scenario(bench: Bench) -> None:
        assert (bench.worker.info.engine, bench.worker.info.num_slots) == ("fake", 2)
        assert (bench.worker.num_open, bench.worker.has_exited) == (0, False)

    contract(scenario)


def test_events_of_a_request_come_in_order_and_end_once(contract: Contract) -> None:
    async def scenario(bench: Bench) -> None:
        events: list[Event] = [event async for event in bench.send("Hello €")]
        assert [type(event) for event in events] == [Started, *[Chunk] * (len(events) - 2), Finished]
        assert "".join(event.text for event in events if isinstance(event, Chunk | Finished)) == "You said: Hello €"
        assert bench.noticed == ["finished"]
        assert bench.worker.num_open == 0
        assert bench.worker.stats is not None

    contract(scenario)


def test_an_abort_ends_its_request_and_no_other(contract: Contract) -> None:
    async def scenario(bench: Bench) -> None:
        gone, stays = bench.send("[[endless]]"), bench.send("[[endless]]")
        await asyncio.gather(first_chunk(gone), first_chunk(stays))
        gone.abort()
        assert bench.worker.num_open == 1
        assert await text_of(bench.send("next")) == "You said: next"  # in the row that has become free
        await first_chunk(stays)
        stays.abort()
        assert bench.noticed == ["finished"]

    contract(scenario)


def test_a_refused_request_ends_with_its_reason(contract: Contract) -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(InvalidRequest) as refused:
            await text_of(bench.send("x" * 9000))
        assert refused.value.code == "context_length_exceeded"
        assert (bench.noticed, bench.worker.num_open) == ([], 0)

    contract(scenario)


def test_what_no_message_can_carry_is_refused_and_not_sent(contract: Contract) -> None:
    """Half a surrogate pair has no bytes in UTF-8."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(InvalidRequest):
            bench.send("\ud800")
        with pytest.raises(InvalidRequest):
            await bench.tokens_of("\ud800")
        assert bench.worker.num_open == 0
        assert await text_of(bench.send("next")) == "You said: next"

    contract(scenario)


def test_all_that_is_open_can_be_failed_together(contract: Contract) -> None:
    async def scenario(bench: Bench) -> None:
        endless, requested = bench.send("[[endless]]"), asyncio.create_task(bench.tokens_of("ab"))
        await asyncio.sleep(0)
        assert bench.worker.num_open == 2
        bench.worker.fail_open(NotReady("leaving"))
        for each in (text_of(endless), requested):
            with pytest.raises(NotReady, match="leaving"):
                await each
        assert await text_of(bench.send("next")) == "You said: next"

    contract(scenario)


# ---- inquiries ----


def test_inquiries_are_answered_beside_requests(contract: Contract) -> None:
    async def scenario(bench: Bench) -> None:
        endless = bench.send("[[endless]]")
        answers = await asyncio.gather(*map(bench.tokens_of, ("a", "b", "c")))
        assert answers == [[97], [98], [99]]
        text = await bench.worker.inquire(Detokenize(request=bench.new_id(), token_ids=[97]))
        assert isinstance(text, Detokenized)
        assert (text.text, bench.worker.num_open) == ("a", 1)
        endless.abort()

    contract(scenario)


def test_a_refused_inquiry_raises(contract: Contract) -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(InvalidRequest) as refused:
            await bench.worker.inquire(Detokenize(request=bench.new_id(), token_ids=[999]))
        assert refused.value.field is Field.TOKEN_IDS
        assert bench.worker.num_open == 0

    contract(scenario)


def test_a_cancelled_inquiry_is_withdrawn(contract: Contract) -> None:
    async def scenario(bench: Bench) -> None:
        requested = asyncio.create_task(bench.tokens_of("ab"))
        await asyncio.sleep(0)
        requested.cancel()
        with pytest.raises(asyncio.CancelledError):
            await requested
        assert bench.worker.num_open == 0
        assert await bench.tokens_of("cd") == [99, 100]

    contract(scenario)


# ---- the end ----


def test_a_drained_worker_finishes_what_it_was_sent(contract: Contract) -> None:
    async def scenario(bench: Bench) -> None:
        answers = [asyncio.create_task(text_of(bench.send(f"[[reply: {i}]]"))) for i in range(4)]
        requested = asyncio.create_task(bench.tokens_of("ab"))
        await asyncio.sleep(0)
        bench.worker.drain()
        bench.worker.drain()
        await bench.worker.wait_exit()
        assert [await each for each in answers] == ["0", "1", "2", "3"]
        assert await requested == [97, 98]
        assert bench.noticed == [*["finished"] * 4, "exit"]
        assert "exit code 0" in await bench.worker.reap()

    contract(scenario)


@pytest.mark.parametrize("by", ["a kill", "a crash"])
def test_its_owner_learns_of_its_end_before_its_callers(contract: Contract, by: str) -> None:
    async def scenario(bench: Bench) -> None:
        endless = [bench.send("[[endless]]") for _ in range(2)]
        await asyncio.gather(*map(first_chunk, endless))
        callers = [asyncio.create_task(bench.end_of(each)) for each in endless]
        if by == "a kill":
            bench.worker.kill()
        else:
            endless[0].abort()
            crash = bench.send("[[crash]]")
            callers[0] = asyncio.create_task(bench.end_of(crash))
        await asyncio.gather(*callers)
        assert bench.noticed == ["exit", "caller", "caller"]
        await bench.worker.wait_exit()
        assert ("SIGKILL" if by == "a kill" else "exit code 139") in await bench.worker.reap()

    contract(scenario)


def test_an_inquiry_ends_with_its_worker(contract: Contract) -> None:
    async def scenario(bench: Bench) -> None:
        endless = bench.send("[[endless]]")
        await first_chunk(endless)
        bench.worker.kill()
        with pytest.raises(EngineDead):
            await asyncio.gather(*(bench.tokens_of("ab") for _ in range(20)))  # more than it can answer before it is gone
        with pytest.raises(EngineDead):
            await text_of(endless)

    contract(scenario)


def test_after_its_end_nothing_is_taken_and_nothing_happens(contract: Contract) -> None:
    async def scenario(bench: Bench) -> None:
        bench.worker.kill()
        await bench.worker.wait_exit()
        with pytest.raises(EngineDead):
            bench.send("too late")
        with pytest.raises(EngineDead):
            await bench.tokens_of("too late")
        bench.worker.set_threads(2)
        bench.worker.fail_open(NotReady("leaving"))
        bench.worker.drain()
        bench.worker.kill()
        assert await bench.worker.reap() == await bench.worker.reap()
        assert bench.noticed == ["exit"]
        late: list[str] = []
        bench.worker.watch(on_exit=lambda: late.append("exit"), on_finished=lambda: None)
        assert late == ["exit"]

    contract(scenario)


# ---- the start ----


def test_a_load_that_fails_raises_its_reason_and_leaves_nothing(contract: Contract) -> None:
    async def scenario() -> None:
        before = set(psutil.Process().children())
        with pytest.raises(NotReady, match="there is no engine 'unheard-of'") as failed:
            await contract.start("bad:1", Load(engine="unheard-of", folder=str(Path()), options=EngineOptions()))
        assert failed.value.code == "load_failed"
        assert set(psutil.Process().children()) <= before

    run(scenario, contract.loop)


@pytest.mark.parametrize("num_turns", [1, 3, 30])
def test_a_start_that_is_cancelled_leaves_nothing(contract: Contract, num_turns: int) -> None:
    """After so many turns of the loop: while the process starts, and while its model loads."""

    async def scenario() -> None:
        before = set(psutil.Process().children())
        starting = asyncio.create_task(contract.start("fake:1", LOAD))  # type: ignore[arg-type]
        for _ in range(num_turns):
            await asyncio.sleep(0)
        starting.cancel()
        try:
            worker = await starting
        except asyncio.CancelledError:
            pass
        else:  # the double is quicker than that
            worker.kill()
            await worker.reap()
        assert set(psutil.Process().children()) <= before

    run(scenario, contract.loop)


def test_the_pool_knows_workers_by_the_protocol_only() -> None:
    """Whoever starts a pool decides where its workers run."""
    processes = {"local.py", "worker_pipe.py"}
    pool = Path(handle.__file__).parent
    for path in pool.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        if path.name not in processes:
            assert "runtime.pool.local" not in source, path.name
            assert "runtime.pool.worker_pipe" not in source, path.name
            assert "subprocess" not in source, path.name
