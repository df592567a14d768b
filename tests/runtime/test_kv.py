"""KV rows on real memory: what is moved is there, what is freed is gone, and only what was touched takes memory."""

from __future__ import annotations

import mmap
import platform

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.batching import kv
from runtime.batching.kv import KVCache
from tests.effort import drawn

ROWS, CONTEXT, HEADS = 4, 64, 2
linux_only = pytest.mark.skipif(platform.system() != "Linux", reason="pages move and return by mremap and madvise, Linux only")


def make(*, rows: int = ROWS, context: int = CONTEXT, head_size: int = 16, dtype: type = np.float32) -> KVCache:
    return KVCache(num_layers=2, rows=rows, kv_heads=HEADS, context=context, head_size=head_size, dtype=np.dtype(dtype))


def fill(cache: KVCache, row: int, num_tokens: int, value: float) -> None:
    for layer, array in enumerate(cache.layers):
        array[row, :, :num_tokens] = value + layer / 10
    cache.wrote(row, num_tokens)


def holds(cache: KVCache, row: int, num_tokens: int, value: float) -> bool:
    return all(
        np.allclose(array[row, :, :num_tokens].astype(np.float32), value + layer / 10, atol=0.01)
        for layer, array in enumerate(cache.layers)
    )


@pytest.fixture(params=["copy", pytest.param("remap", marks=linux_only)])
def moving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of moving a row, whatever its length."""
    monkeypatch.setattr(kv, "REMAP_ABOVE_BYTES", 0 if request.param == "remap" else 1 << 60)
    return str(request.param)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_moved_row_is_in_its_new_place_and_others_stay(moving: str, dtype: type) -> None:
    cache = make(dtype=dtype)
    for row in range(ROWS):
        fill(cache, row, 10 * (row + 1), row + 1)
    cache.move(3, 1)
    assert holds(cache, 1, 40, 4)
    assert holds(cache, 0, 10, 1)
    assert holds(cache, 2, 30, 3)


@drawn(40)
@given(st.lists(st.tuples(st.sampled_from(["move", "copy", "free", "fill"]), st.integers(0, 3), st.integers(0, 3)), max_size=20))
def test_moving_pages_and_moving_bytes_agree(actions: list[tuple[str, int, int]]) -> None:
    """The same actions on both; after each, rows hold the same wherever anything of use is held."""
    caches, used = [make(), make()], dict.fromkeys(range(ROWS), 0)
    for number, (action, a, b) in enumerate(actions):
        for cache, above in zip(caches, (0, 1 << 60), strict=True):
            kept, kv.REMAP_ABOVE_BYTES = kv.REMAP_ABOVE_BYTES, above
            try:
                _act(cache, action, a, b, used[a], number + 1)
            finally:
                kv.REMAP_ABOVE_BYTES = kept
        if action == "move" and a != b:
            used[b], used[a] = used[a], 0
        elif action == "copy":
            used[b] = max(used[b], used[a]) if used[a] == 0 else used[a]
        else:
            used[a] = {"free": 0, "fill": 7 * (b + 1)}.get(action, used[a])
        for row, size in used.items():
            for one, other in zip(caches[0].layers, caches[1].layers, strict=True):
                assert (one[row, :, :size] == other[row, :, :size]).all()


def _act(cache: KVCache, action: str, a: int, b: int, held: int, value: int) -> None:
    match action:
        case "move" if a != b:
            cache.move(a, b)
        case "copy":
            cache.copy(a, b, held)
        case "free":
            cache.free(a)
        case "fill":
            fill(cache, a, 7 * (b + 1), value)


def test_a_copied_prefix_stands_in_both_rows() -> None:
    cache = make()
    fill(cache, 0, 30, 5)
    fill(cache, 1, 30, 6)
    cache.copy(0, 1, 20)
    assert holds(cache, 1, 20, 5)
    assert holds(cache, 0, 30, 5)
    assert (cache.layers[0][1, :, 20:30] == 6).all()


def test_backed_bytes_follow_what_was_touched() -> None:
    cache = make()
    assert cache.backed_bytes() == 0
    fill(cache, 0, 10, 1)
    cache.copy(0, 1, 5)
    assert cache.backed_bytes() == 15 * cache.bytes_per_token
    cache.free(0)
    assert cache.backed_bytes() == 5 * cache.bytes_per_token


def test_rows_are_whole_pages() -> None:
    cache = make(context=65)
    assert cache.context >= 65
    assert cache.context * HEADS * 16 * 4 % mmap.PAGESIZE == 0
    assert all(array.shape == (ROWS, HEADS, cache.context, 16) and array.flags.c_contiguous for array in cache.layers)


@linux_only
def test_a_freed_row_reads_as_zeros() -> None:
    cache = make()
    fill(cache, 2, 30, 5)
    cache.free(2)
    assert all((array[2] == 0).all() for array in cache.layers)


@linux_only
def test_reserving_takes_no_memory_and_freeing_gives_it_back() -> None:
    """64 MiB of rows; the bounds leave the rest of the process room to move."""
    process, mib = psutil.Process(), 1 << 20
    before = process.memory_info().rss
    cache = make(rows=8, context=16384, head_size=64)
    assert 8 * 16384 * cache.bytes_per_token > 128 * mib
    assert process.memory_info().rss - before < 8 * mib
    fill(cache, 0, 16384, 1)
    touched = process.memory_info().rss
    assert touched - before > 24 * mib
    cache.free(0)
    assert touched - process.memory_info().rss > 24 * mib


@linux_only
def test_a_system_that_refuses_to_remap_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, a: int, b: int, spare: int, size: int) -> None:
        raise OSError("not here")

    monkeypatch.setattr(kv._Remapper, "exchange", refuse)
    monkeypatch.setattr(kv, "REMAP_ABOVE_BYTES", 0)
    cache = make()
    fill(cache, 0, 30, 5)
    cache.move(0, 1)
    assert holds(cache, 1, 30, 5)


def test_more_than_the_address_space_says_what_to_lower() -> None:
    with pytest.raises(MemoryError, match="lower num_slots or context_length"):
        make(context=1 << 44)
