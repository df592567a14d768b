"""Loads: shared by all requests, failed with the reason, not stopped by a caller that leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from runtime.pool.loaded_model import ModelState
from runtime.protocol.errors import NotReady
from tests.doubles.event_loops import run
from tests.doubles.pool_bench import PATIENCE_S, SPEC, new_pool, process_pool, spec_of, start_chat, text_of

pytestmark = pytest.mark.api


def test_all_requests_at_once_share_one_process() -> None:
    async def scenario() -> None:
        async with process_pool() as pool:
            before = set(psutil.Process().children())
            leases = await asyncio.gather(*(pool.acquire(SPEC, timeout_s=PATIENCE_S) for _ in range(5)))
            (pid,) = {lease.info.pid for lease in leases}
            assert set(psutil.Process().children()) - before == {psutil.Process(pid)}
            (model,) = pool.loaded()
            assert (model.num_leases, model.idle_since) == (5, None)
            for lease in leases:
                lease.release()
                lease.release()
            (model,) = pool.loaded()
            assert model.num_leases == 0
            assert model.idle_since is not None

    run(scenario)


@pytest.mark.parametrize(
    ("engine", "files", "expected_text"),
    [
        ("onnx", {}, r"genai_config\.json is missing"),
        ("onnx", {"genai_config.json": "garbage"}, "not valid JSON"),
        ("unheard-of", {}, "known are onnx, genai, foundry and fake"),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path, engine: str, files: dict[str, str], expected_text: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)

    async def scenario() -> None:
        async with process_pool() as pool:
            spec = spec_of("bad:1", engine=engine, folder=folder)
            ends = await asyncio.gather(*(pool.acquire(spec, timeout_s=PATIENCE_S) for _ in range(2)), return_exceptions=True)
            for end in ends:
                with pytest.raises(NotReady, match=expected_text) as caught:
                    raise end  # type: ignore[misc]
                assert caught.value.code == "load_failed"
            assert pool.loaded() == ()
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S) as lease:
                assert await text_of(start_chat(lease, "others")) == "You said: others"

    run(scenario)


def test_a_caller_that_does_not_wait_is_refused_and_the_load_goes_on() -> None:
    async def scenario() -> None:
        async with new_pool() as pool:
            with pytest.raises(NotReady, match="still loading after 0 s") as caught:
                await pool.acquire(SPEC, timeout_s=0)
            assert caught.value.code == "model_loading"
            assert caught.value.retry_after_s
            (model,) = pool.loaded()
            assert (model.state, model.info, model.loaded_at) == (ModelState.LOADING, None, None)
            with await pool.acquire(SPEC, timeout_s=PATIENCE_S):
                assert pool.loaded()[0].state is ModelState.READY

    run(scenario)
